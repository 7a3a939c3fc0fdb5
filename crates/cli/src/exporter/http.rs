//! As much of HTTP/1.1 as a scraper needs: one GET a connection, and bounds on all that a stranger
//! can make us hold.

use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How many scrapers are served at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// The longest request, and for how long one may be on its way.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long a scraper may take to take an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// What is read at once.
const PIECE_BYTES: usize = 1024;

/// How long to wait when a connection cannot be accepted: the process has too many files open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A request, as much of it as matters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) accept: String,
    head_only: bool,
}

#[cfg(test)]
impl Request {
    /// A GET of this path.
    pub(crate) fn get(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            accept: String::new(),
            head_only: false,
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    /// Shared, because a page of many groups is large.
    pub(crate) body: Arc<String>,
    /// What stands behind it for this one only.
    pub(crate) tail: String,
}

impl Answer {
    /// A line of text.
    pub(crate) fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: Arc::new(body.into()),
            tail: String::new(),
        }
    }
}

/// Answers requests until the listener or the task is dropped.
pub(crate) async fn serve<F>(listener: TcpListener, answer: F)
where
    F: Fn(&Request) -> Answer + Clone + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    one(stream, &answer).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a scraper cannot be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Reads one request and answers it. A peer that leaves or dawdles is left.
async fn one<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answer: &impl Fn(&Request) -> Answer,
) {
    let (answer, head_only) = match timeout(HEAD_PATIENCE, head(&mut stream)).await {
        Ok(Some(head)) => match parse(&head) {
            Ok(request) => (answer(&request), request.head_only),
            Err(refusal) => (refusal, false),
        },
        Ok(None) => return,
        Err(_) => (Answer::text("408 Request Timeout", "too slow\n"), false),
    };
    let Answer {
        status,
        content_type,
        body,
        tail,
    } = answer;
    let allow = match status.starts_with("405") {
        true => "Allow: GET, HEAD\r\n",
        false => "",
    };
    let length = body.len() + tail.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         {allow}Connection: close\r\n\r\n"
    );
    let write = async {
        stream.write_all(head.as_bytes()).await?;
        if !head_only {
            stream.write_all(body.as_bytes()).await?;
            stream.write_all(tail.as_bytes()).await?;
        }
        stream.shutdown().await
    };
    // Whoever does not take the answer has lost it.
    let _ = timeout(ANSWER_PATIENCE, write).await;
}

/// The bytes up to the empty line, or all that fit; `None` when nothing comes.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; PIECE_BYTES];
    loop {
        let count = stream.read(&mut piece).await.ok()?;
        head.extend_from_slice(piece.get(..count)?);
        let ends = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
        if ends(b"\r\n\r\n") || ends(b"\n\n") || head.len() > HEAD_BYTES_MAX {
            return Some(head);
        }
        if count == 0 {
            return (!head.is_empty()).then_some(head);
        }
    }
}

fn parse(head: &[u8]) -> Result<Request, Answer> {
    if head.len() > HEAD_BYTES_MAX {
        let status = "431 Request Header Fields Too Large";
        return Err(Answer::text(status, "the request is too long\n"));
    }
    let malformed = || Answer::text("400 Bad Request", "not an HTTP request\n");
    let text = std::str::from_utf8(head).map_err(|_| malformed())?;
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed());
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(malformed());
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Answer::text("405 Method Not Allowed", "only GET\n")),
    };
    let fields = lines.filter_map(|line| line.split_once(':'));
    let accept = fields.filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
    let accept: Vec<&str> = accept.map(|(_, value)| value.trim()).collect();
    Ok(Request {
        path: target.split('?').next().unwrap_or_default().to_owned(),
        accept: accept.join(","),
        head_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;
    use tokio::time::Instant;

    fn echo(request: &Request) -> Answer {
        Answer {
            tail: format!(" {}", request.accept),
            ..Answer::text("200 OK", request.path.as_str())
        }
    }

    /// What comes back for these bytes.
    async fn answer(bytes: &[u8]) -> String {
        let (mut ours, theirs) = duplex(1 << 20);
        let bytes = bytes.to_vec();
        let ask = async move {
            ours.write_all(&bytes).await.unwrap();
            let mut back = String::new();
            ours.read_to_string(&mut back).await.unwrap();
            back
        };
        tokio::join!(ask, one(theirs, &echo)).0
    }

    #[tokio::test]
    async fn a_get_is_answered_and_a_head_without_a_body() {
        let back =
            answer(b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\naccept: text/plain\r\n\r\n").await;
        assert!(back.starts_with("HTTP/1.1 200 OK\r\n"), "{back}");
        assert!(back.contains("Content-Length: 19\r\n"), "{back}");
        assert!(back.ends_with("\r\n\r\n/metrics text/plain"), "{back}");
        let back = answer(b"HEAD / HTTP/1.0\n\n").await;
        assert!(back.contains("Content-Length: 2\r\n"), "{back}");
        assert!(back.ends_with("\r\n\r\n"), "{back}");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let first = async |bytes: &[u8]| answer(bytes).await.lines().next().unwrap().to_owned();
        assert_eq!(
            first(b"\x16\x03\x01\xff\xfe\n\n").await,
            "HTTP/1.1 400 Bad Request"
        );
        assert_eq!(first(b"hello\r\n\r\n").await, "HTTP/1.1 400 Bad Request");
        assert_eq!(
            first(b"GET http://x/ HTTP/1.1\r\n\r\n").await,
            "HTTP/1.1 400 Bad Request"
        );
        let post = answer(b"POST /metrics HTTP/1.1\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
        assert!(post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    }

    #[tokio::test]
    async fn a_giant_head_is_refused_before_it_is_read() {
        let giant = [b"GET / HTTP/1.1\r\n".to_vec(), vec![b'a'; 1 << 18]].concat();
        let back = answer(&giant).await;
        assert!(back.starts_with("HTTP/1.1 431 "), "{back}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_drips_is_given_up() {
        let (mut ours, theirs) = duplex(64);
        let began = Instant::now();
        let drip = async {
            while ours.write_all(b"a").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = drip => {}
            () = one(theirs, &echo) => {}
        }
        assert!(began.elapsed() <= HEAD_PATIENCE + ANSWER_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_scraper_that_takes_nothing_is_left() {
        let (mut ours, theirs) = duplex(32);
        let began = Instant::now();
        ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        one(theirs, &echo).await;
        assert_eq!(began.elapsed(), ANSWER_PATIENCE);
    }
}
