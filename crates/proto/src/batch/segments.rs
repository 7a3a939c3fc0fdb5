//! The pieces of a records section.

use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;

/// The pieces of a records section, in order. A batch is often one chunk, which needs no list.
#[derive(Debug, Clone)]
pub enum Segments {
    /// One piece.
    One(Bytes),
    /// Any number of pieces.
    Many(Vec<Bytes>),
    /// Many pieces that are final: a batch and each of its requests hold the same list.
    Shared(Arc<[Bytes]>),
}

impl Default for Segments {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Segments {
    /// All pieces of a list, which keeps its room; empty ones are dropped.
    pub(super) fn drained(pieces: &mut Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        match pieces.len() {
            0 | 1 => pieces.pop().map_or_else(Self::default, Self::One),
            _ => Self::Shared(pieces.drain(..).collect()),
        }
    }

    /// Adds a piece at the end; an empty one is dropped.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match self {
            Self::Many(pieces) if pieces.is_empty() => *self = Self::One(piece),
            Self::Many(pieces) => pieces.push(piece),
            Self::One(first) => *self = Self::Many(vec![std::mem::take(first), piece]),
            Self::Shared(pieces) => {
                *self = Self::Many(pieces.iter().cloned().chain([piece]).collect());
            }
        }
    }

    /// Bytes in all pieces.
    pub fn size_bytes(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }
}

impl PartialEq for Segments {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Segments {}

impl Deref for Segments {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        match self {
            Self::One(piece) => std::slice::from_ref(piece),
            Self::Many(pieces) => pieces,
            Self::Shared(pieces) => pieces,
        }
    }
}

impl FromIterator<Bytes> for Segments {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut segments = Self::default();
        pieces.into_iter().for_each(|piece| segments.push(piece));
        segments
    }
}

impl From<Segments> for Vec<Bytes> {
    fn from(segments: Segments) -> Self {
        match segments {
            Segments::One(piece) => vec![piece],
            Segments::Many(pieces) => pieces,
            Segments::Shared(pieces) => pieces.to_vec(),
        }
    }
}

impl<'a> IntoIterator for &'a Segments {
    type Item = &'a Bytes;
    type IntoIter = std::slice::Iter<'a, Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_in_order_and_empty_ones_are_dropped() {
        let mut segments = Segments::default();
        assert_eq!((segments.len(), segments.size_bytes()), (0, 0));
        let mut wanted: Vec<Bytes> = Vec::new();
        for piece in ["a", "", "bc", "def", ""] {
            let piece = Bytes::from_static(piece.as_bytes());
            segments.push(piece.clone());
            wanted.extend((!piece.is_empty()).then_some(piece));
            assert_eq!(&*segments, &*wanted);
        }
        assert_eq!(segments.size_bytes(), 6);
        let mut list: Vec<Bytes> = ["", "a", "bc", "def", ""].map(Bytes::from).into();
        let mut shared = Segments::drained(&mut list);
        assert!(list.is_empty() && shared == segments);
        shared.push(Bytes::from("g"));
        assert_eq!((shared.len(), segments.len()), (4, 3));
        assert_eq!(segments, wanted.into_iter().collect());
    }
}
