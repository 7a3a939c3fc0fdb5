//! Figures and reasons as a person reads them.

use ottla::lag::{PartitionLag, Progress};
use ottla::partitioner::{Fallback, Method, PartitionHealth};
use std::time::Duration;

/// Below this part of an even share a partition gets next to nothing.
const SPARED: f64 = 0.02;

/// Below this part it gets little.
const TRICKLE: f64 = 0.5;

/// From this part on it takes what others are spared.
const MORE: f64 = 1.2;

/// By what records are placed, and what is missing where they are not steered.
pub(super) fn method(method: Method) -> &'static str {
    match method {
        Method::Drain => "keyless records go where they are read soonest, by drain time",
        Method::Weighted => "keyless records go by the scorer's weights",
        Method::Uniform(reason) => uniform(reason),
    }
}

fn uniform(reason: Fallback) -> &'static str {
    match reason {
        Fallback::NoPlan | Fallback::UnknownTopic => {
            "keyless records go to all partitions alike: nothing is known of the topic yet"
        }
        Fallback::TooOld => {
            "keyless records go to all partitions alike: the figures are more than a minute old"
        }
        Fallback::NoRates => {
            "keyless records go to all partitions alike: no commit was seen to move yet. Consumers \
             that commit more rarely than we watched need --seconds"
        }
        Fallback::NoCommits => {
            "keyless records go to all partitions alike: the group has committed nothing in the topic"
        }
        Fallback::Denied => {
            "keyless records go to all partitions alike: no permission to see the group or the topic"
        }
        Fallback::NoWeights => "keyless records go to all partitions alike: every weight is zero",
        Fallback::NoLeader => "nothing can be sent: no partition has a leader",
        Fallback::Off => "keyless records go to all partitions alike: steering is off",
    }
}

/// Why a partition has its share, where `fair` is an even one.
pub(super) fn why(health: &PartitionHealth, lag: &PartitionLag, fair: f64) -> String {
    let part = health.weight / fair;
    let amount = match part {
        _ if part < SPARED => "spared",
        _ if part < TRICKLE => "a trickle",
        _ if part < MORE => "about an even share",
        _ => "takes what others are spared",
    };
    let mut why = format!("{amount}: {}", health.reason);
    let more = match lag.progress {
        Progress::Blocked => Some("blocked by an open transaction: the rest is not to be read yet"),
        Progress::Rewound => Some("the group went back"),
        Progress::Waiting => Some("not watched long enough to say how the group gets on"),
        Progress::Ok | Progress::Behind | Progress::Stalled | Progress::Unknown => None,
    };
    let lost = (lag.lost > 0).then(|| format!("{} records were deleted unread", lag.lost));
    for clause in more.map(str::to_owned).into_iter().chain(lost) {
        why.push_str("; ");
        why.push_str(&clause);
    }
    why
}

/// A time in the unit that fits.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.1}s"),
        _ if seconds < 600.0 => format!("{seconds:.0}s"),
        _ if seconds < 36_000.0 => format!("{:.0}min", seconds / 60.0),
        _ => format!("{:.0}h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla::lag::LagStatus;
    use ottla::partitioner::Status;
    use std::time::Instant;

    fn health(weight: f64) -> PartitionHealth {
        PartitionHealth {
            partition: 0,
            lag: Some(100),
            backlog: Some(90.0),
            rate: Some(10.0),
            drain_time: Some(Duration::from_secs(9)),
            weight,
            status: Status::Lagging,
            reason: "more waits than commits explain",
            group: None,
            taken_at: None,
        }
    }

    fn lag(progress: Progress, lost: u64) -> PartitionLag {
        PartitionLag {
            partition: 0,
            end: Some(200),
            committed: Some(100),
            log_start: Some(0),
            last_stable: Some(200),
            lag: Some(100),
            lost,
            status: LagStatus::Known,
            time_lag: None,
            progress,
            taken_at: Instant::now(),
        }
    }

    #[test]
    fn a_share_is_told_in_words_with_what_it_rests_on() {
        let told = |weight| why(&health(weight), &lag(Progress::Ok, 0), 0.25);
        assert_eq!(told(0.001), "spared: more waits than commits explain");
        assert_eq!(told(0.1), "a trickle: more waits than commits explain");
        assert_eq!(
            told(0.25),
            "about an even share: more waits than commits explain"
        );
        assert!(told(0.6).starts_with("takes what others are spared: "));
    }

    #[test]
    fn open_transactions_and_lost_records_are_named() {
        let told = why(&health(0.25), &lag(Progress::Blocked, 7), 0.25);
        assert!(told.contains("blocked by an open transaction"), "{told}");
        assert!(told.ends_with("; 7 records were deleted unread"), "{told}");
    }

    #[test]
    fn every_fallback_is_explained() {
        for reason in Fallback::ALL {
            assert!(method(Method::Uniform(reason)).len() > 20, "{reason}");
        }
    }

    #[test]
    fn times_are_short() {
        let told = |seconds| time(Duration::from_secs_f64(seconds));
        assert_eq!(
            [told(0.04), told(12.3), told(3_600.0), told(360_000.0)],
            ["0.0s", "12s", "60min", "100h"]
        );
    }
}
