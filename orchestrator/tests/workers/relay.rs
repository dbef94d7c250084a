//! A network between a worker and its orchestrator that breaks as the test wants.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

#[derive(Clone, Copy, PartialEq)]
enum Weather {
    Fair,
    /// Nothing arrives, in either direction, and nobody is told: connections that there are, and those that come.
    Swallows,
    /// Every connection is reset.
    Resets,
}

pub struct Relay {
    pub url: String,
    weather: Arc<watch::Sender<Weather>>,
}

impl Relay {
    /// Before this orchestrator, such as `http://127.0.0.1:1234`.
    pub async fn before(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let seen = weather.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // Nobody there: the connection that has just come is closed.
                if let Ok(far) = TcpStream::connect(&target).await {
                    tokio::spawn(pass_on(near, far, seen.subscribe()));
                }
            }
        });
        Self { url, weather }
    }

    pub fn swallow(&self) {
        self.weather.send_replace(Weather::Swallows);
    }

    /// Resets the connections that there are; later ones are well.
    pub fn reset(&self) {
        self.weather.send_replace(Weather::Resets);
        self.weather.send_replace(Weather::Fair);
    }
}

async fn pass_on(near: TcpStream, far: TcpStream, mut weather: watch::Receiver<Weather>) {
    for stream in [&near, &far] {
        // Closed without a goodbye whenever it is closed: that is a reset.
        stream.set_zero_linger().unwrap();
    }
    if *weather.borrow_and_update() == Weather::Swallows {
        std::future::pending::<()>().await;
    }
    let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
    let there = copy(near_reads, far_writes);
    let back = copy(far_reads, near_writes);
    let mut both = std::pin::pin!(async { tokio::join!(there, back) });
    loop {
        tokio::select! {
            _ = both.as_mut() => return,
            changed = weather.changed() => {
                if changed.is_err() || *weather.borrow_and_update() != Weather::Swallows {
                    return;
                }
                // Held, and never polled again.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
