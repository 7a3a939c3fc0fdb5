//! The pieces of a records section.

use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;

/// So many pieces need no list of their own: a batch is often one chunk, and a compressed one two.
const FEW: usize = 3;

/// The pieces of a records section, or of a request, in order.
#[derive(Debug, Clone)]
pub enum Segments {
    /// So many of these pieces; those behind them are empty.
    Few([Bytes; FEW], usize),
    /// Any number of pieces.
    Many(Vec<Bytes>),
    /// Many pieces that are final: a batch and each of its requests hold the same list.
    Shared(Arc<[Bytes]>),
}

impl Default for Segments {
    fn default() -> Self {
        Self::Few(Default::default(), 0)
    }
}

impl Segments {
    /// No pieces yet, with room for so many.
    pub fn with_capacity(pieces: usize) -> Self {
        if pieces > FEW {
            Self::Many(Vec::with_capacity(pieces))
        } else {
            Self::default()
        }
    }

    /// All pieces of a list, which keeps its room; empty ones are dropped.
    pub(super) fn drained(pieces: &mut Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        if pieces.len() > FEW {
            Self::Shared(pieces.drain(..).collect())
        } else {
            pieces.drain(..).collect()
        }
    }

    /// Adds a piece at the end; an empty one is dropped.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match self {
            Self::Few(pieces, count) => match pieces.get_mut(*count) {
                Some(place) => {
                    *place = piece;
                    *count += 1;
                }
                None => {
                    let mut many = Vec::with_capacity(4 * FEW);
                    many.extend(std::mem::take(pieces));
                    many.push(piece);
                    *self = Self::Many(many);
                }
            },
            Self::Many(pieces) => pieces.push(piece),
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
            Self::Few(pieces, count) => pieces.get(..*count).unwrap_or_default(),
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

impl From<Bytes> for Segments {
    fn from(piece: Bytes) -> Self {
        Self::from_iter([piece])
    }
}

impl From<Segments> for Vec<Bytes> {
    fn from(segments: Segments) -> Self {
        match segments {
            Segments::Many(pieces) => pieces,
            few => few.to_vec(),
        }
    }
}

impl IntoIterator for Segments {
    type Item = Bytes;
    type IntoIter = Pieces;

    fn into_iter(self) -> Pieces {
        Pieces(match self {
            Self::Few(pieces, count) => Each::Few(pieces.into_iter().take(count)),
            many => Each::Many(Vec::from(many).into_iter()),
        })
    }
}

/// The pieces, one after the other.
#[derive(Debug)]
pub struct Pieces(Each);

#[derive(Debug)]
enum Each {
    Few(std::iter::Take<std::array::IntoIter<Bytes, FEW>>),
    Many(std::vec::IntoIter<Bytes>),
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Each::Few(pieces) => pieces.next(),
            Each::Many(pieces) => pieces.next(),
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
        assert_eq!(shared.clone().into_iter().collect::<Vec<_>>(), wanted);
        shared.push(Bytes::from("g"));
        assert_eq!((shared.len(), segments.len()), (4, 3));
        assert!(matches!(
            (&segments, &shared),
            (Segments::Few(..), Segments::Many(_))
        ));
        assert_eq!(segments, wanted.into_iter().collect());
    }

    #[test]
    fn few_pieces_need_no_list_and_many_are_one_list_for_all_who_hold_them() {
        for count in 0..=FEW + 2 {
            let mut list = vec![Bytes::from_static(b"piece"); count];
            let segments = Segments::drained(&mut list);
            let other = segments.clone();
            assert_eq!(matches!(segments, Segments::Few(..)), count <= FEW);
            assert_eq!(segments.as_ptr() == other.as_ptr(), count > FEW);
            assert_eq!(other.into_iter().count(), count);
        }
    }
}
