//! Whether two names are the same.

/// As `==`, which calls a function: for names as short as most topics' the call takes longer than
/// the comparison, and a producer compares one at every record.
#[inline]
pub fn same_name(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    // Both ends together are all of it; they may overlap.
    match a.len() {
        4..8 => ends::<4>(a) == ends(b),
        8..=16 => ends::<8>(a) == ends(b),
        17..=32 => ends::<16>(a) == ends(b),
        _ => a == b,
    }
}

#[inline]
fn ends<const N: usize>(name: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    Some((name.first_chunk()?, name.last_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_compared_at_every_place() {
        for len in 0..70 {
            let name = "t".repeat(len);
            assert!(same_name(&name, &name.clone()));
            assert!(!same_name(&name, &"t".repeat(len + 1)));
            for at in 0..len {
                let mut other = name.clone();
                other.replace_range(at..=at, "u");
                assert!(!same_name(&name, &other), "{other}");
            }
        }
    }
}
