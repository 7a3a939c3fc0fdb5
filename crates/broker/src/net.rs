//! How connections come to a node: over TCP or in memory.

use crate::server::Connection;
use crate::state::{Node, Shared};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;

/// How many connections a node takes; more are closed at once.
const CONNECTIONS_MAX: usize = 4096;

/// What an in-memory connection holds in each direction before its writer waits.
const DUPLEX_BYTES: usize = 256 * 1024;

/// Counts a connection or a listener as open until it is dropped.
struct Open {
    shared: Arc<Shared>,
    node: i32,
}

impl Open {
    fn new(shared: &Arc<Shared>, node: &Node) -> Self {
        node.open.send_modify(|count| *count += 1);
        Self {
            shared: shared.clone(),
            node: node.id,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(node) = self.shared.node(self.node) {
            node.open.send_modify(|count| *count -= 1);
        }
    }
}

/// Binds a loopback port; 0 takes any free one.
pub(crate) async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// Accepts connections for a node until it stops.
pub(crate) fn listen(shared: &Arc<Shared>, node: &Node, listener: TcpListener) {
    let open = Open::new(shared, node);
    tokio::spawn(async move {
        let Some(node) = open.shared.node(open.node) else {
            return;
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = node.up.wait_for(false) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY was refused");
                    }
                    let host = format!("/{}", peer.ip());
                    serve(&open.shared, open.node, host, stream);
                }
                Err(error) => {
                    // Out of file descriptors, most likely: let some connections end.
                    tracing::warn!(%error, node = open.node, "a connection was not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    });
}

fn serve<S>(shared: &Arc<Shared>, id: i32, client_host: String, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(node) = shared.node(id) else {
        return;
    };
    if *node.open.borrow() > CONNECTIONS_MAX {
        tracing::warn!(node = id, "too many connections");
        return;
    }
    let open = Open::new(shared, node);
    let connection = Connection::new(shared.clone(), id, client_host);
    tokio::spawn(async move {
        connection.serve(stream).await;
        drop(open);
    });
}

/// Connects to a node in memory.
///
/// # Errors
/// `NotFound` for an address that is no node's, `ConnectionRefused` while the node is stopped.
pub(crate) fn dial(shared: &Arc<Shared>, host: &str, port: u16) -> io::Result<DuplexStream> {
    let mut nodes = shared.nodes.iter();
    let node = nodes.find(|node| node.host == host && node.port == port);
    let Some(node) = node else {
        let reason = format!("no node of the embedded cluster is at {host}:{port}");
        return Err(io::Error::new(io::ErrorKind::NotFound, reason));
    };
    if !node.is_up() {
        let reason = format!("node {} of the embedded cluster is stopped", node.id);
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason));
    }
    let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
    serve(shared, node.id, "/127.0.0.1".to_owned(), ours);
    Ok(theirs)
}

/// Waits until a stopped node has closed its listener and every connection.
pub(crate) async fn wait_until_closed(node: &Node) {
    let mut open = node.open.subscribe();
    // The sender lives as long as the node, so this cannot fail.
    let _ = open.wait_for(|count| *count == 0).await;
}
