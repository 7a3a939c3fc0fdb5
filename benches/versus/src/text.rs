//! The text that values are cut from: a fixed corpus, and for compressed runs many variants of it.
//!
//! A compressed run needs more text than a repository should hold, and text that repeats would flatter a client
//! that fills a batch in several pieces: it would find the same phrases twice in it. So the corpus is said again
//! in other words: each word gives its place to another one of the same length that is about as frequent. The
//! vocabulary stays, the phrases do not.

use std::borrow::Cow;
use std::collections::HashMap;

/// Entries of Debian's package list: text that people really send around.
static CORPUS: &[u8] = include_bytes!("../corpus.txt");

/// How often the corpus is said in other words; 34 MB in all, more than lies between two pieces of a batch.
const VARIANTS: usize = 24;

/// Words that take each other's places. More than there are variants, or a word would come back to its own.
const CIRCLE: usize = 32;

/// A word by its length and its rank among the words of that length, or what stands between two words.
enum Token {
    Word { length: usize, rank: usize },
    Between(&'static [u8]),
}

/// The text of a run: the corpus, or for runs in which some client compresses the long text.
pub fn text(compressed: bool) -> Cow<'static, [u8]> {
    if compressed {
        in_other_words(CORPUS).into()
    } else {
        CORPUS.into()
    }
}

fn in_other_words(corpus: &'static [u8]) -> Vec<u8> {
    let pieces: Vec<&'static [u8]> = corpus
        .chunk_by(|a, b| a.is_ascii_alphanumeric() == b.is_ascii_alphanumeric())
        .collect();
    let vocabulary = Vocabulary::of(&pieces);
    let tokens: Vec<Token> = pieces.iter().map(|piece| vocabulary.token(piece)).collect();
    let mut text = Vec::with_capacity(corpus.len() * VARIANTS);
    for variant in 0..VARIANTS {
        for token in &tokens {
            text.extend_from_slice(vocabulary.say(token, variant));
        }
    }
    text
}

#[derive(Default)]
struct Vocabulary {
    /// Words by length, the most frequent first.
    by_length: HashMap<usize, Vec<&'static [u8]>>,
    ranks: HashMap<&'static [u8], usize>,
}

impl Vocabulary {
    fn of(pieces: &[&'static [u8]]) -> Vocabulary {
        let mut counts: HashMap<&'static [u8], usize> = HashMap::new();
        for word in pieces.iter().filter(|piece| is_word(piece)) {
            *counts.entry(word).or_default() += 1;
        }
        let mut words: Vec<(&'static [u8], usize)> = counts.into_iter().collect();
        words.sort_unstable_by_key(|&(word, count)| (std::cmp::Reverse(count), word));
        let mut vocabulary = Vocabulary::default();
        for (word, _) in words {
            let same_length = vocabulary.by_length.entry(word.len()).or_default();
            vocabulary.ranks.insert(word, same_length.len());
            same_length.push(word);
        }
        vocabulary
    }

    fn token(&self, piece: &'static [u8]) -> Token {
        match self.ranks.get(piece) {
            Some(&rank) => Token::Word {
                length: piece.len(),
                rank,
            },
            None => Token::Between(piece),
        }
    }

    fn say(&self, token: &Token, variant: usize) -> &'static [u8] {
        match *token {
            Token::Between(piece) => piece,
            Token::Word { length, rank } => {
                let words = &self.by_length[&length];
                let circle = rank / CIRCLE * CIRCLE;
                let members = CIRCLE.min(words.len() - circle);
                words[circle + (rank - circle + variant) % members]
            }
        }
    }
}

fn is_word(piece: &[u8]) -> bool {
    piece.first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variant_is_the_corpus_and_the_others_differ() {
        let text = in_other_words(CORPUS);
        let (first, rest) = text.split_at(CORPUS.len());
        assert_eq!(text.len(), CORPUS.len() * VARIANTS);
        assert!(first == CORPUS);
        for variant in rest.chunks(CORPUS.len()) {
            let same = variant.iter().zip(CORPUS).filter(|(a, b)| a == b).count();
            assert!(
                same < CORPUS.len() / 2,
                "{same} of {} bytes are as they were",
                CORPUS.len()
            );
        }
    }
}
