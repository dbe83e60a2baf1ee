//! A way to a server that takes its time: a TCP proxy that delivers everything late, and loses no bandwidth by it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How much is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// How many chunks may be under way in one direction of a connection: 16 MiB.
const UNDER_WAY: usize = 256;

/// Passes every connection on to `to`. What goes there and what comes back each take half a round trip, opening a connection a
/// whole one.
pub(crate) async fn serve(listener: TcpListener, to: SocketAddr, round_trip: Duration) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(async move {
            tokio::time::sleep(round_trip).await;
            let Ok(far) = TcpStream::connect(to).await else { return };
            drop((near.set_nodelay(true), far.set_nodelay(true)));
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::join!(
                pass(near_read, far_write, round_trip / 2),
                pass(far_read, near_write, round_trip / 2)
            );
        });
    }
}

/// Passes one direction of a connection on, until one side closes it.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            match from.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) if sender.send((Instant::now() + delay, chunk)).await.is_err() => return,
                Ok(_) => {}
            }
        }
    };
    let write = async move {
        while let Some((at, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    tokio::join!(read, write);
}
