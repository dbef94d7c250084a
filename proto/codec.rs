//! How messages are put on the wire: as prost does it, with buffers that begin small.
//!
//! tonic gives every stream two buffers of 8 KiB before the first message. Ten thousand workers that wait would hold 160 MB of
//! them for heartbeats of a few bytes, and every unary call would ask for both. These grow when a message needs it. It refuses
//! to know what is in a message.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What a buffer begins with: most messages fit.
const BUFFER_BYTES: usize = 512;

/// From here on what was encoded is sent before more is: tonic's own value.
const YIELD_BYTES: usize = 32 * 1024;

/// The codec of every generated client and server.
#[derive(Debug)]
pub struct SmallBuffersCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffersCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffersCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}
