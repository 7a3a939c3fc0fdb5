//! Control records: what a broker writes into the log for its clients' eyes only.

/// What a control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlType {
    /// The transaction of the batch's producer id ended, and its records count for nothing.
    Abort,
    /// The transaction of the batch's producer id ended, and its records count.
    Commit,
    /// Any other, such as the Raft log's own; a client skips it.
    Other(i16),
}

/// Reads the key of a control record. `None` when it is malformed, which a client skips too.
///
/// Only the record of a batch with [`is_control`](super::BatchHeader::is_control) is a control record: an
/// application's key may have these bytes by chance.
pub fn control_type(key: &[u8]) -> Option<ControlType> {
    let (version, rest) = key.split_first_chunk()?;
    // A later version may append fields; it keeps those of version 0.
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (kind, _) = rest.split_first_chunk()?;
    Some(match i16::from_be_bytes(*kind) {
        0 => ControlType::Abort,
        1 => ControlType::Commit,
        other => ControlType::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_the_version() {
        assert_eq!(control_type(&[0, 0, 0, 0]), Some(ControlType::Abort));
        assert_eq!(control_type(&[0, 0, 0, 1]), Some(ControlType::Commit));
        assert_eq!(control_type(&[0, 1, 0, 1, 9]), Some(ControlType::Commit));
        assert_eq!(control_type(&[0, 0, 0, 2]), Some(ControlType::Other(2)));
    }

    #[test]
    fn a_malformed_key_says_nothing() {
        assert_eq!(control_type(&[]), None);
        assert_eq!(control_type(&[0, 0, 0]), None);
        assert_eq!(control_type(&[0xff, 0xff, 0, 1]), None);
    }
}
