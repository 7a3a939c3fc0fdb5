//! One connection: requests are handled strictly in order, and nothing further is read while one
//! is being handled, as Kafka does.

use crate::api::{self, Context, Outcome};
use crate::faults::{Action, Due};
use crate::frame::{Input, Malformed, Reply, RequestHead, read_frame};
use crate::state::{Node, Shared};
use bytes::BytesMut;
use kafka_protocol::messages::ApiKey;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;

/// Room for the small requests that arrive together; large frames bypass it.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What lives as long as a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    /// The node it leads to.
    pub(crate) node: i32,
    /// The client's address, as DescribeGroups shows it.
    pub(crate) client_host: String,
    /// Notified when a partition that a waiting request looks at has changed.
    pub(crate) wake: Arc<Notify>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, node: i32, client_host: String) -> Self {
        Self {
            shared,
            node,
            client_host,
            wake: Arc::new(Notify::new()),
        }
    }

    /// Serves until the client leaves, sends something malformed, or the node stops.
    pub(crate) async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(node) = self.shared.node(self.node) else {
            return;
        };
        let ended = tokio::select! {
            biased;
            () = node.up.wait_for(false) => Ok(()),
            ended = self.requests(node, stream) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(node = self.node, %error, "a connection broke");
        }
    }

    async fn requests<S>(&self, node: &Node, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        let frame_max = self.shared.settings.request_bytes_max;
        while let Some(frame) = read_frame(&mut stream, frame_max).await? {
            node.frozen.wait_for(false).await;
            let Some(outcome) = self.request(frame).await else {
                return Ok(());
            };
            let (mut reply, then) = match outcome {
                Sent::Nothing => continue,
                Sent::Whole(reply, then) => (reply, then),
            };
            stream.write_all_buf(&mut reply).await?;
            stream.flush().await?;
            match then {
                Then::GoOn => {}
                Then::End => return Ok(()),
                Then::Rest(time) => tokio::time::sleep(time).await,
            }
        }
        Ok(())
    }

    /// Handles one request with the faults that are due; `None` ends the connection.
    async fn request(&self, frame: BytesMut) -> Option<Sent> {
        let mut input = Input::new(frame, false);
        let head = RequestHead::parse(&mut input).ok()?;
        let key = (self.node, head.api);
        *self.shared.requests.lock().entry(key).or_insert(0) += 1;
        let due = self.shared.faults.take(self.node, head.api);
        if due.delay > Duration::ZERO {
            tokio::time::sleep(due.delay).await;
        }
        if due.action == Some(Action::Disconnect) {
            return None;
        }
        let outcome = self.handle(&head, input, &due).await;
        match (outcome, due.action) {
            (Err(Malformed) | Ok(Outcome::Close), _) => {
                tracing::debug!(node = self.node, ?head, "a request cannot be served");
                None
            }
            (Ok(_), Some(Action::LoseAnswer)) => None,
            (Ok(Outcome::NoReply), _) => Some(Sent::Nothing),
            (Ok(Outcome::Reply(mut reply)), Some(Action::CutAnswer(bytes))) => {
                reply.cut(bytes);
                Some(Sent::Whole(reply, Then::End))
            }
            (Ok(Outcome::Reply(reply)), Some(Action::Throttle(time))) => {
                Some(Sent::Whole(reply, Then::Rest(time)))
            }
            (Ok(Outcome::Reply(reply)), _) => Some(Sent::Whole(reply, Then::GoOn)),
        }
    }

    async fn handle(
        &self,
        head: &RequestHead,
        mut input: Input,
        due: &Due,
    ) -> Result<Outcome, Malformed> {
        let api = ApiKey::try_from(head.api).map_err(|()| Malformed)?;
        let served = api::versions_of(api).ok_or(Malformed)?;
        if !served.contains(&head.version) {
            return api::unserved_version(api, head.correlation);
        }
        let client_id = input.string()?.unwrap_or_default();
        input.set_flexible(api.request_header_version(head.version) >= 2);
        input.skip_tags()?;
        let mut context = Context {
            connection: self,
            api,
            version: head.version,
            correlation: head.correlation,
            client_id,
            fault: due.action,
            struck: due.partition,
        };
        let body = input.into_rest();
        match due.action {
            // Produce does this by itself, partition by partition. Elsewhere the request is done
            // and then asked again only for its error answer.
            Some(Action::ApplyThenError(code)) if api != ApiKey::Produce => {
                context.fault = None;
                api::dispatch(&context, body.clone()).await?;
                context.fault = Some(Action::Error(code));
                api::dispatch(&context, body).await
            }
            _ => api::dispatch(&context, body).await,
        }
    }
}

enum Sent {
    Nothing,
    Whole(Reply, Then),
}

/// What follows an answer.
enum Then {
    GoOn,
    End,
    /// The client was told to stay away for so long.
    Rest(Duration),
}
