//! Redis as the store that a fleet shares.

use super::{Claim, Key, Publication, Store, VALUE_BYTES_MAX};
use crate::source::Trouble;
use ottla_proto::{Error, ErrorKind, Result};
use ottla_wire::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ClientTlsConfig, RedisError, RedisResult, Script, TlsCertificates};
use std::fmt;
use std::time::Duration;

/// How long one attempt to connect may take, and how long a command. The fleet waits for neither
/// longer than its own patience; these end what it has given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause between two attempts to connect anew.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// How many attempts a lost connection is worth before the next command begins again.
const RECONNECT_ATTEMPTS: usize = 2;

/// For how long the counter of fencing tokens outlives the last lease. It only has to outlive every
/// lease and every value.
const TOKEN_LIVES: Duration = Duration::from_secs(24 * 3_600);

/// Takes, renews or reads a lease; KEYS are lease, token and value of each question, ARGV the owner,
/// the life of a lease and of a counter, and the longest value. Answers a row for each: whether it
/// is ours (1), another's (0) or unreadable (2), the token, the clock, the value.
const CLAIM: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}
for at = 1, #KEYS, 3 do
  local lease, counter, value = KEYS[at], KEYS[at + 1], KEYS[at + 2]
  local token, owner = string.match(redis.call('GET', lease) or '', '^(%d+) (%x+)$')
  if not token then
    token = redis.call('INCR', counter)
    redis.call('PEXPIRE', counter, ARGV[3])
    redis.call('SET', lease, token .. ' ' .. ARGV[1], 'PX', ARGV[2])
    rows[#rows + 1] = {1, tonumber(token), now, false}
  elseif owner == ARGV[1] then
    redis.call('PEXPIRE', lease, ARGV[2])
    redis.call('PEXPIRE', counter, ARGV[3])
    rows[#rows + 1] = {1, tonumber(token), now, false}
  elseif redis.call('STRLEN', value) > tonumber(ARGV[4]) then
    rows[#rows + 1] = {2, 0, now, false}
  else
    rows[#rows + 1] = {0, 0, now, redis.call('GET', value)}
  end
end
return rows
";

/// Publishes under leases that still hold; KEYS are lease and value of each, ARGV the life of a
/// value and then for each the holder, the age and the body.
const PUBLISH: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local written = 0
for at = 1, #KEYS, 2 do
  local first = 2 + (at - 1) / 2 * 3
  if redis.call('GET', KEYS[at]) == ARGV[first] then
    local stamp = string.format('%.0f', now - tonumber(ARGV[first + 1]))
    redis.call('SET', KEYS[at + 1], '1 ' .. stamp .. ' ' .. ARGV[first + 2], 'PX', ARGV[1])
    written = written + 1
  end
end
return written
";

/// A Redis server that a fleet of producers shares. It needs no persistence, and no memory beyond
/// the last figures of each group: about 40 bytes a partition.
pub struct RedisStore {
    connection: ConnectionManager,
    claim: Script,
    publish: Script,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

/// Describes how to reach Redis.
#[must_use = "nothing is reached until `build`"]
pub struct RedisStoreBuilder {
    url: String,
    root_certificate: Option<Vec<u8>>,
    client: Option<ClientTlsConfig>,
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Begins with an address: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss:` for TLS.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder {
            url: url.into(),
            root_certificate: None,
            client: None,
        }
    }
}

impl RedisStoreBuilder {
    /// Trusts this authority (PEM) instead of the system's.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Shows this certificate (PEM), with its private key (PEM), to a server that asks for one.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.client = Some(ClientTlsConfig {
            client_cert: certificate.into(),
            client_key: key.into(),
        });
        self
    }

    /// Makes the store. It connects when it is first asked, and anew after it was lost.
    ///
    /// # Errors
    /// `Config` when the address or the certificate cannot be read. The address is not shown: it may
    /// hold a password.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn build(self) -> Result<RedisStore> {
        let wrong = |error: &RedisError| {
            let what = format!(
                "the address or certificate of the shared store: {}",
                error.category()
            );
            Error::new(ErrorKind::Config, what)
        };
        // The one that is in force already stays: it is the user's choice.
        let _ = rustls_graviola::default_provider().install_default();
        let client = match (self.client, self.root_certificate) {
            (None, None) => Client::open(self.url),
            (client_tls, root_cert) => Client::build_with_tls(
                self.url,
                TlsCertificates {
                    client_tls,
                    root_cert,
                },
            ),
        };
        let client = client.map_err(|error| wrong(&error))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_max_delay(RECONNECT_MAX)
            .set_number_of_retries(RECONNECT_ATTEMPTS);
        let connection = ConnectionManager::new_lazy_with_config(client, config);
        Ok(RedisStore {
            connection: connection.map_err(|error| wrong(&error))?,
            claim: Script::new(CLAIM),
            publish: Script::new(PUBLISH),
        })
    }
}

impl Store for RedisStore {
    fn claim<'a>(
        &'a mut self,
        keys: &'a [Key],
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Claim>, Trouble>> {
        Box::pin(async move {
            let mut call = self.claim.prepare_invoke();
            call.arg(owner).arg(millis(lease)).arg(millis(TOKEN_LIVES));
            call.arg(VALUE_BYTES_MAX);
            for Key(key) in keys {
                call.key(format!("{key}:lease"));
                call.key(format!("{key}:token"));
                call.key(format!("{key}:value"));
            }
            type Row = (u8, u64, u64, Option<Vec<u8>>);
            let rows: RedisResult<Vec<Row>> = call.invoke_async(&mut self.connection).await;
            let rows = rows.map_err(|error| trouble(&error))?;
            let claims = rows
                .into_iter()
                .map(|(kind, token, now, value)| match kind {
                    0 => Claim::Theirs { now, value },
                    1 => Claim::Ours { token },
                    _ => Claim::Garbage,
                });
            Ok(claims.collect())
        })
    }

    fn publish<'a>(
        &'a mut self,
        publications: &'a [Publication],
        owner: &'a str,
        lives: Duration,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let mut call = self.publish.prepare_invoke();
            call.arg(millis(lives));
            for one in publications {
                let Key(key) = &one.key;
                call.key(format!("{key}:lease"));
                call.key(format!("{key}:value"));
                call.arg(format!("{} {owner}", one.token));
                call.arg(millis(one.age)).arg(one.body.as_str());
            }
            let written: RedisResult<u64> = call.invoke_async(&mut self.connection).await;
            // A lease that was lost meanwhile is no trouble: its new holder publishes.
            written.map(|_| ()).map_err(|error| trouble(&error))
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is wrong, from Redis's own error.
fn trouble(error: &RedisError) -> Trouble {
    tracing::debug!(%error, "the shared store of lag figures");
    match error.kind() {
        _ if error.is_timeout() => Trouble::Slow,
        redis::ErrorKind::Io => Trouble::Unreachable,
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => Trouble::Garbage,
        _ if error.is_io_error() || error.is_connection_dropped() => Trouble::Unreachable,
        _ => Trouble::Refused,
    }
}

#[cfg(test)]
mod tests;
