//! Writes the fields of a protocol-buffers message from values that are borrowed.
//!
//! A message of prost owns its texts, and measures each message within it before it is written. Records of jobs are written with every
//! change, by the journal and again by the database; here they go straight from the job to their bytes. It promises the bytes that prost
//! would write, if the fields come in the order of their tags. It refuses to know what they mean.

use prost::{
    Message,
    encoding::{WireType, encode_key},
};

/// The fields of one message, at the end of these bytes.
pub(super) struct Fields<'b>(&'b mut Vec<u8>);

impl<'b> Fields<'b> {
    /// Behind what is in the buffer.
    pub(super) fn behind(buffer: &'b mut Vec<u8>) -> Self {
        Self(buffer)
    }

    /// What prost writes of a message.
    pub(super) fn all_of(&mut self, message: &impl Message) {
        message.encode(self.0).expect("a Vec grows as needed, and encoding fails for lack of room only");
    }

    /// A number, of which 0 leaves no trace. Those with a sign count as their two's complement of 64 bits.
    pub(super) fn number(&mut self, tag: u32, value: u64) {
        self.maybe_number(tag, (value != 0).then_some(value));
    }

    /// A number that may be missing.
    pub(super) fn maybe_number(&mut self, tag: u32, value: Option<u64>) {
        let Some(value) = value else { return };
        encode_key(tag, WireType::Varint, self.0);
        self.varint(value);
    }

    /// A number that is small on either side of 0 (`sint32`), of which 0 leaves no trace.
    pub(super) fn zigzag(&mut self, tag: u32, value: i32) {
        self.number(tag, u64::from(((value << 1) ^ (value >> 31)) as u32));
    }

    /// A text, of which the empty one leaves no trace.
    pub(super) fn text(&mut self, tag: u32, value: &str) {
        self.maybe_bytes(tag, (!value.is_empty()).then_some(value.as_bytes()));
    }

    /// A text that may be missing; or one of several.
    pub(super) fn maybe_text(&mut self, tag: u32, value: Option<&str>) {
        self.maybe_bytes(tag, value.map(str::as_bytes));
    }

    /// Bytes that may be missing.
    pub(super) fn maybe_bytes(&mut self, tag: u32, value: Option<&[u8]>) {
        let Some(value) = value else { return };
        encode_key(tag, WireType::LengthDelimited, self.0);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A message within this one, for what is too rare to be written without prost.
    pub(super) fn maybe_message(&mut self, tag: u32, message: Option<impl Message>) {
        if let Some(message) = message {
            prost::encoding::message::encode(tag, &message, self.0);
        }
    }

    /// A message within this one.
    pub(super) fn nested(&mut self, tag: u32, write: impl FnOnce(&mut Fields<'_>)) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        let start = self.0.len();
        write(&mut Fields(self.0));
        let end = self.0.len();
        // Its length is known now, and stands before it.
        self.varint((end - start) as u64);
        let length_len = self.0.len() - end;
        self.0[start..].rotate_right(length_len);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
