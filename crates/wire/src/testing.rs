//! A peer that speaks just enough Kafka, over in-memory streams, for this crate's tests.

use crate::api_key::ApiKey;
use crate::dial::{BoxFuture, BoxStream, Dial};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsResponse, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// Bytes that fit between client and peer before one has to wait.
const PIPE_BYTES: usize = 256 << 10;

/// Streams that may wait for a listener to take them; the next dial waits with them.
const BACKLOG: usize = 16;

/// One request as the peer sees it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: String,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn body<Q: Decodable>(&self) -> Q {
        Q::decode(&mut self.body.clone(), self.version).unwrap()
    }
}

/// The other end of a connection.
pub(crate) struct Peer(pub(crate) DuplexStream);

impl Peer {
    /// The next request, or `None` when the client closed.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        let length = self.0.read_i32().await.ok()?;
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut bytes).await.ok()?;
        let mut bytes = Bytes::from(bytes);
        let api = ApiKey::from_number((&bytes[0..2]).get_i16()).unwrap();
        let version = (&bytes[2..4]).get_i16();
        let wire_api = kafka_protocol::messages::ApiKey::try_from(api.number()).unwrap();
        let header =
            RequestHeader::decode(&mut bytes, wire_api.request_header_version(version)).unwrap();
        Some(Asked {
            api,
            version,
            correlation: header.correlation_id,
            client_id: header.client_id.unwrap_or_default().to_string(),
            body: bytes,
        })
    }

    /// Sends raw bytes as the answer to that correlation id.
    pub(crate) async fn answer_raw(&mut self, correlation: i32, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(body.len()).unwrap() + 4);
        frame.put_i32(correlation);
        frame.put_slice(body);
        self.0.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn answer<R: Encodable + HeaderVersion>(&mut self, asked: &Asked, answer: &R) {
        let body = answer_bytes(asked.version, answer);
        self.answer_raw(asked.correlation, &body).await;
    }

    /// Answers the handshake: every API in every version.
    pub(crate) async fn shake_hands(&mut self) {
        let asked = self.asked().await.unwrap();
        assert_eq!(asked.api, ApiKey::ApiVersions);
        self.answer(&asked, &every_version()).await;
    }
}

/// A body as it follows the correlation id.
pub(crate) fn answer_bytes<R: Encodable + HeaderVersion>(version: i16, answer: &R) -> Vec<u8> {
    let mut body = BytesMut::new();
    if R::header_version(version) >= 1 {
        body.put_u8(0);
    }
    answer.encode(&mut body, version).unwrap();
    body.to_vec()
}

pub(crate) fn every_version() -> ApiVersionsResponse {
    let ranges = ApiKey::ALL.iter().map(|api| (*api, 0, 30));
    versions(ranges)
}

pub(crate) fn versions(
    ranges: impl IntoIterator<Item = (ApiKey, i16, i16)>,
) -> ApiVersionsResponse {
    let ranges = ranges.into_iter().map(|(api, min, max)| {
        ApiVersion::default()
            .with_api_key(api.number())
            .with_min_version(min)
            .with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(ranges.collect())
}

/// A stream and its other end.
pub(crate) fn pipe() -> (BoxStream, Peer) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    (BoxStream::new(ours), Peer(theirs))
}

type Ports = BTreeMap<(String, u16), Option<mpsc::Sender<Peer>>>;

/// A network of hosts that may be listening, silent, or not there.
#[derive(Clone, Default)]
pub(crate) struct Net {
    ports: Arc<Mutex<Ports>>,
    dials: Arc<Mutex<Vec<String>>>,
}

impl Net {
    /// Lets a port take connections.
    pub(crate) fn listen(&self, host: &str, port: u16) -> mpsc::Receiver<Peer> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.ports
            .lock()
            .insert((host.to_owned(), port), Some(sender));
        receiver
    }

    /// A host that never answers.
    pub(crate) fn black_hole(&self, host: &str, port: u16) {
        self.ports.lock().insert((host.to_owned(), port), None);
    }

    /// Nobody listens there any more.
    pub(crate) fn remove(&self, host: &str, port: u16) {
        self.ports.lock().remove(&(host.to_owned(), port));
    }

    /// Every dial so far.
    pub(crate) fn dials(&self) -> Vec<String> {
        self.dials.lock().clone()
    }

    /// Lets a port take connections and answers each request by `answer`; `None` hangs up.
    pub(crate) fn serve(
        &self,
        host: &str,
        port: u16,
        answer: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) {
        let mut peers = self.listen(host, port);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Some(mut peer) = peers.recv().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    while let Some(asked) = peer.asked().await {
                        let Some(body) = answer(&asked) else { return };
                        peer.answer_raw(asked.correlation, &body).await;
                    }
                });
            }
        });
    }
}

impl Dial for Net {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            self.dials.lock().push(format!("{host}:{port}"));
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let listener = self.ports.lock().get(&(host.to_owned(), port)).cloned();
            match listener.ok_or_else(refused)? {
                None => std::future::pending().await,
                Some(listener) => {
                    let (ours, peer) = pipe();
                    listener.send(peer).await.map_err(|_| refused())?;
                    Ok(ours)
                }
            }
        })
    }
}
