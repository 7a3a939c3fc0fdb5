//! How a byte stream to a broker is made: TCP here, anything else through the trait.

use crate::hedge::{Attempt, hedge};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// How long one address of a name may take before the next is tried beside it, as browsers do
/// (RFC 8305).
const PATIENCE: Duration = Duration::from_millis(250);

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected byte stream in two halves, so that one task may read while another writes.
pub struct BoxStream {
    /// Bytes from the broker.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Bytes to the broker. Vectored writes pass through the box.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl BoxStream {
    /// Takes a stream that does not split by itself.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self::halves(reader, writer)
    }

    /// Takes two halves.
    pub fn halves(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
        }
    }
}

impl fmt::Debug for BoxStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxStream")
    }
}

/// Makes byte streams. The client bounds how long it waits for one.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `host:port`.
    ///
    /// Cancel safety: dropping the future gives the attempt up.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>>;
}

/// Dials TCP: every address of a name in turn (`client.dns.lookup=use_all_dns_ips`), without
/// Nagle's delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tcp {
    /// `SO_SNDBUF` (`send.buffer.bytes`); `None` leaves it to the system.
    pub send_buffer_bytes: Option<u32>,
    /// `SO_RCVBUF` (`receive.buffer.bytes`); `None` leaves it to the system.
    pub receive_buffer_bytes: Option<u32>,
}

impl Tcp {
    /// Socket buffers as the settings say.
    pub fn from_settings(settings: &crate::Settings) -> Self {
        let bytes = |size: Option<usize>| size.and_then(|size| u32::try_from(size).ok());
        Self {
            send_buffer_bytes: bytes(settings.send_buffer_bytes),
            receive_buffer_bytes: bytes(settings.receive_buffer_bytes),
        }
    }

    async fn connect(self, address: std::net::SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            std::net::SocketAddr::V4(_) => TcpSocket::new_v4()?,
            std::net::SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Dial for Tcp {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let mut attempts: Vec<Attempt<'_, TcpStream, io::Error>> = Vec::new();
            for address in tokio::net::lookup_host((host, port)).await? {
                attempts.push(Box::pin(self.connect(address)));
            }
            let mut failures = Vec::new();
            let Some(stream) = hedge(attempts, PATIENCE, &mut failures).await else {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(failures.pop().unwrap_or_else(none));
            };
            let (reader, writer) = stream.into_split();
            Ok(BoxStream::halves(reader, writer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn tcp_connects_by_name_and_writes_vectored() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stream = Tcp::default().dial("localhost", port).await.unwrap();
        assert!(stream.writer.is_write_vectored());
        stream.writer.write_all(b"hello").await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut got = [0; 5];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = Tcp::default().dial("127.0.0.1", port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
