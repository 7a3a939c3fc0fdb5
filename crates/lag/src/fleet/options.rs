//! What properties say of the store that a fleet shares.

use super::Store;
use ottla_proto::{Error, ErrorKind, Result};
use std::fmt;
use std::fmt::Write;

/// Where the store is, as far as properties say so.
#[derive(Clone, Default)]
pub(crate) struct FleetOptions {
    url: Option<String>,
    is_enabled: bool,
    host: Option<String>,
    port: Option<u16>,
    database: Option<u16>,
    password: Option<String>,
    is_tls: bool,
    authority: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl fmt::Debug for FleetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("FleetOptions").finish_non_exhaustive()
    }
}

impl FleetOptions {
    /// Reads one property by its name; `None` when it is none of these or does not fit. What is empty
    /// counts as not set.
    pub(crate) fn read(&mut self, name: &str, value: &str) -> Option<()> {
        let text = || Some(value.to_owned()).filter(|text| !text.is_empty());
        match name {
            "lag.fleet.redis.url" => self.url = text(),
            "lag.fleet.enable" => self.is_enabled = value.parse().ok()?,
            "lag.fleet.redis.host" => self.host = text(),
            "lag.fleet.redis.port" => self.port = Some(value.parse().ok()?),
            "lag.fleet.redis.database" => self.database = Some(value.parse().ok()?),
            "lag.fleet.redis.password" => self.password = text(),
            "lag.fleet.redis.tls.enable" => self.is_tls = value.parse().ok()?,
            "lag.fleet.redis.ca.location" => self.authority = text(),
            "lag.fleet.redis.certificate.location" => self.certificate = text(),
            "lag.fleet.redis.key.location" => self.key = text(),
            _ => return None,
        }
        Some(())
    }

    /// The store's address; `None` when no store is asked for.
    fn address(&self) -> Option<String> {
        if self.url.is_some() {
            return self.url.clone();
        }
        if !self.is_enabled {
            return None;
        }
        let has_files = self.authority.is_some() || self.certificate.is_some();
        let scheme = match self.is_tls || has_files {
            true => "rediss",
            false => "redis",
        };
        let mut address = format!("{scheme}://");
        if let Some(password) = &self.password {
            address.push(':');
            escape(&mut address, password);
            address.push('@');
        }
        address.push_str(self.host.as_deref().unwrap_or("localhost"));
        let (port, database) = (self.port.unwrap_or(6379), self.database.unwrap_or(0));
        let _ = write!(address, ":{port}/{database}");
        Some(address)
    }

    /// The store that was asked for.
    ///
    /// # Errors
    /// `Config` when the address or the authority's certificate cannot be read, or when the store is
    /// asked for of a build without it.
    pub(crate) fn store(&self) -> Result<Option<Box<dyn Store>>> {
        match self.address() {
            None => Ok(None),
            Some(address) => self.redis(address).map(Some),
        }
    }

    #[cfg(feature = "redis")]
    fn redis(&self, address: String) -> Result<Box<dyn Store>> {
        let mut builder = super::RedisStore::builder(address);
        if let Some(path) = &self.authority {
            builder = builder.root_certificate(read("ca", path)?);
        }
        builder = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                builder.client_certificate(read("certificate", certificate)?, read("key", key)?)
            }
            (None, None) => builder,
            _ => {
                let what = "lag.fleet.redis.certificate.location and lag.fleet.redis.key.location \
                            belong together";
                return Err(Error::new(ErrorKind::Config, what));
            }
        };
        Ok(Box::new(builder.build()?))
    }

    #[cfg(not(feature = "redis"))]
    fn redis(&self, _: String) -> Result<Box<dyn Store>> {
        let what = "lag.fleet.redis.url and its companions need the feature redis of this library";
        Err(Error::new(ErrorKind::Config, what))
    }
}

/// Reads the file that one of the properties `lag.fleet.redis.WHAT.location` names.
#[cfg(feature = "redis")]
fn read(what: &str, path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let what = format!("lag.fleet.redis.{what}.location: {path}: {error}");
        Error::new(ErrorKind::Config, what).caused_by(error)
    })
}

/// Writes text so that it stands for itself in an address.
fn escape(address: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            address.push(char::from(byte));
        } else {
            let _ = write!(address, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> FleetOptions {
        let mut options = FleetOptions::default();
        for (name, value) in pairs {
            options.read(&format!("lag.fleet.{name}"), value).unwrap();
        }
        options
    }

    #[test]
    fn no_store_unless_asked_for() {
        assert_eq!(of(&[]).address(), None);
        assert_eq!(
            of(&[("redis.host", "cache"), ("redis.url", "")]).address(),
            None
        );
        assert!(of(&[]).store().unwrap().is_none());
    }

    #[test]
    fn an_address_is_made_of_its_parts_and_a_whole_one_wins() {
        let parts = [
            ("enable", "true"),
            ("redis.host", "cache"),
            ("redis.port", "7000"),
            ("redis.database", "2"),
            ("redis.password", "a:b@c/\u{e9}"),
        ];
        let address = of(&parts).address().unwrap();
        assert_eq!(address, "redis://:a%3Ab%40c%2F%C3%A9@cache:7000/2");
        let alone = of(&[("enable", "true")]).address().unwrap();
        assert_eq!(alone, "redis://localhost:6379/0");
        let whole = of(&[("enable", "true"), ("redis.url", "rediss://x")]);
        assert_eq!(whole.address().unwrap(), "rediss://x");
        let tls = of(&[("enable", "true"), ("redis.ca.location", "ca.pem")]);
        assert!(tls.address().unwrap().starts_with("rediss://localhost"));
        let tls = of(&[("enable", "true"), ("redis.tls.enable", "true")]);
        assert!(tls.address().unwrap().starts_with("rediss://localhost"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let options = of(&[
            ("redis.url", "redis://:secret@x"),
            ("redis.password", "secret"),
        ]);
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn a_build_without_the_store_says_so() {
        let error = of(&[("redis.url", "redis://x")]).store().err().unwrap();
        assert!(error.to_string().contains("feature redis"), "{error}");
    }
}
