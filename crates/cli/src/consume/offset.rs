//! Where to begin and where to end, in kcat's words.

use ottla::consumer::{Point, Start};
use std::str::FromStr;
use std::time::Duration;

/// One `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offset {
    /// Begin there.
    From(From),
    /// End before the first record of this time or later, in milliseconds since the Unix epoch.
    Until(i64),
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Beginning,
    End,
    /// Where the group has committed.
    Stored,
    At(i64),
    /// So many records before the end.
    Last(i64),
    Time(Duration),
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = |text: &str| {
            let millis = text.parse::<i64>().ok().filter(|millis| *millis >= 0);
            millis.ok_or_else(|| "a time is in milliseconds since 1970".to_owned())
        };
        if let Some(time) = text.strip_prefix("s@") {
            let millis = millis(time)?.unsigned_abs();
            return Ok(Self::From(From::Time(Duration::from_millis(millis))));
        }
        if let Some(time) = text.strip_prefix("e@") {
            return Ok(Self::Until(millis(time)?));
        }
        let from = match text {
            "beginning" | "earliest" => From::Beginning,
            "end" | "latest" => From::End,
            "stored" => From::Stored,
            number => match number.parse::<i64>() {
                Ok(back) if back < 0 => From::Last(back.checked_neg().unwrap_or(i64::MAX)),
                Ok(offset) => From::At(offset),
                Err(_) => {
                    return Err("it must be beginning, end, stored, N, -N, s@MS or e@MS".into());
                }
            },
        };
        Ok(Self::From(from))
    }
}

/// What all `-o` say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Option<From>,
    pub(crate) until: Option<i64>,
}

impl Range {
    /// # Errors
    /// Two beginnings, or two ends.
    pub(crate) fn new(offsets: &[Offset]) -> Result<Self, String> {
        let mut range = Self {
            from: None,
            until: None,
        };
        for offset in offsets {
            let again = match *offset {
                Offset::From(from) => range.from.replace(from).is_some(),
                Offset::Until(millis) => range.until.replace(millis).is_some(),
            };
            if again {
                return Err("--offset names two beginnings or two ends".to_owned());
            }
        }
        Ok(range)
    }
}

impl From {
    /// Where a partition that is read on its own begins. The last N are found from the end, which
    /// is looked up first.
    pub(crate) fn start(self) -> Start {
        match self {
            Self::Beginning => Start::At(Point::Earliest),
            Self::End | Self::Last(_) => Start::At(Point::Latest),
            Self::Stored => Start::Awaited,
            Self::At(offset) => Start::Offset(offset, None),
            Self::Time(time) => Start::At(Point::At(time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> From {
        match text.parse() {
            Ok(Offset::From(from)) => from,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn kcats_forms_are_understood() {
        assert_eq!(from("beginning"), From::Beginning);
        assert_eq!(from("end"), From::End);
        assert_eq!(from("stored"), From::Stored);
        assert_eq!(from("0"), From::At(0));
        assert_eq!(from("42"), From::At(42));
        assert_eq!(from("-5"), From::Last(5));
        assert_eq!(from("s@1500"), From::Time(Duration::from_millis(1500)));
        assert_eq!("e@1500".parse(), Ok(Offset::Until(1500)));
        assert_eq!(from(&i64::MIN.to_string()), From::Last(i64::MAX));
        for wrong in ["", "now", "s@", "s@-1", "e@soon", "1.5"] {
            assert!(wrong.parse::<Offset>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_beginning_and_an_end_go_together_and_two_beginnings_do_not() {
        let parse = |texts: &[&str]| {
            let offsets: Vec<Offset> = texts.iter().map(|text| text.parse().unwrap()).collect();
            Range::new(&offsets)
        };
        let range = parse(&["s@1000", "e@2000"]).unwrap();
        assert_eq!(range.from, Some(From::Time(Duration::from_secs(1))));
        assert_eq!(range.until, Some(2000));
        assert!(parse(&["5", "beginning"]).is_err());
        assert_eq!(parse(&[]).unwrap().from, None);
    }
}
