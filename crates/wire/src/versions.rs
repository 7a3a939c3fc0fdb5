//! What a broker speaks, as its ApiVersions answer says.

use crate::api_key::ApiKey;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A feature that the whole cluster has agreed on, with its range of levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Name, such as `transaction.version`.
    pub name: Arc<str>,
    /// Lowest level in force.
    pub min_level: i16,
    /// Highest level in force.
    pub max_level: i16,
}

/// One broker's versions and features.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    ranges: BTreeMap<i16, (i16, i16)>,
    /// Features in force cluster-wide.
    pub finalized: Vec<Feature>,
    /// Grows with each change of the finalized features.
    pub finalized_epoch: Option<i64>,
}

impl Versions {
    /// Keeps the ranges of an answer.
    pub fn new(ranges: impl IntoIterator<Item = (i16, RangeInclusive<i16>)>) -> Self {
        let ranges = ranges.into_iter();
        Self {
            ranges: ranges
                .map(|(api, range)| (api, range.into_inner()))
                .collect(),
            finalized: Vec::new(),
            finalized_epoch: None,
        }
    }

    /// What the broker speaks of an API.
    pub fn range(&self, api: ApiKey) -> Option<RangeInclusive<i16>> {
        let (min, max) = self.ranges.get(&api.number())?;
        Some(*min..=*max)
    }

    /// The highest version that both sides speak.
    pub fn common(&self, api: ApiKey, ours: &RangeInclusive<i16>) -> Option<i16> {
        let theirs = self.range(api)?;
        let highest = *theirs.end().min(ours.end());
        let lowest = *theirs.start().max(ours.start());
        (lowest <= highest).then_some(highest)
    }

    /// The level in force of a finalized feature; `None` when the cluster has not agreed on it.
    pub fn feature_level(&self, name: &str) -> Option<i16> {
        let feature = self
            .finalized
            .iter()
            .find(|feature| &*feature.name == name)?;
        Some(feature.max_level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_taken_or_none() {
        let versions = Versions::new([(0, 3..=11), (1, 4..=18), (3, RangeInclusive::new(9, 8))]);
        assert_eq!(versions.common(ApiKey::Produce, &(3..=13)), Some(11));
        assert_eq!(versions.common(ApiKey::Fetch, &(4..=17)), Some(17));
        assert_eq!(versions.common(ApiKey::Fetch, &(0..=3)), None);
        assert_eq!(
            versions.common(ApiKey::Metadata, &(0..=13)),
            None,
            "an empty range"
        );
        assert_eq!(
            versions.common(ApiKey::Heartbeat, &(0..=4)),
            None,
            "not spoken at all"
        );
    }
}
