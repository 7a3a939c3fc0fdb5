//! What is remembered of one partition between two observations.

/// Rates are taken over at least this long, in seconds: shorter windows measure the timing of
/// commits rather than the consumer.
const WINDOW_SECONDS: f64 = 1.0;

/// A lane's share of a median rate below which it never falls: a partition believed dead must still
/// be found alive again.
const RATE_FLOOR: f64 = 0.02;

/// How fast the gap between commits is learnt, a commit.
const GAP_GAIN: f64 = 0.3;

/// How fast the age of lag is learnt, a commit, once so many were seen; of the first ones each counts
/// alike.
const AGE_GAIN: f64 = 0.3;

/// How many ages must be seen before they say anything. One is the chance of when we looked: those of
/// a whole group can all be young at one look.
const AGES_MIN: u32 = 3;

/// How many standard deviations of a random count are taken for chance.
const CHANCE_DEVIATIONS: f64 = 2.0;

/// How a missed commit is forgotten, a commit: a memory of about 23.
const MISS_MEMORY: f64 = 0.97;

/// How slowly a partition that is caught up is forgiven a low rate, in seconds. At most a fifth of
/// the way a commit.
const FORGIVE_SECONDS: f64 = 5.0;

/// How much lag commits alone explain, in seconds of consumption.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Explained {
    /// The edge of the saw that commits cut into the lag.
    pub(super) delta: f64,
    /// The part of it that a backlog is measured against: much smaller than `delta` when `delta` is
    /// much smaller than the time between observations, for then it cannot mislead for long.
    pub(super) delta_backlog: f64,
    /// The part of it within which a consumer may have waited for records.
    pub(super) delta_idle: f64,
}

/// A first rate that must wait for the median of this observation's first rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FirstSample {
    pub(super) records: f64,
    pub(super) seconds: f64,
}

/// What one observation brought.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Step {
    /// The committed offset moved, or had no need to; the seconds since it did last.
    pub(super) jumped: Option<f64>,
    /// The records of the first jump ever: the begin of the first window.
    pub(super) first_jump: Option<f64>,
    /// A window's first rate.
    pub(super) first_sample: Option<FirstSample>,
    /// The committed offset went back.
    pub(super) rewound: bool,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    committed: i64,
    since: f64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    committed: i64,
    /// When it was first seen.
    since: f64,
    /// When the committed offset last moved.
    jumped_at: f64,
    /// The lag just after that.
    lag: f64,
    /// Smoothed time between jumps; 0 until known.
    gap: f64,
    window: Option<Window>,
    /// The consumer may have waited for records within the window: its rate is a lower bound.
    idle: bool,
    /// Its records were deleted before it read them: the next jump is no consumption.
    below_start: bool,
}

/// One partition between two observations. Times are seconds since the observer began.
#[derive(Debug, Default)]
pub(super) struct Lane {
    seen: Option<Seen>,
    /// When its committed offset was last heard.
    heard_at: f64,
    /// Consumption in records a second, once known.
    pub(super) rate: Option<f64>,
    /// Until then: it cannot be more, because what the first commit seen took was behind the one
    /// before it and there was more to read.
    pub(super) rate_max: Option<f64>,
    /// Smoothed lag just after a commit, in seconds of consumption.
    age: f64,
    /// How many went into it.
    ages: u32,
    /// Near 1 while observations see no commit where one was due.
    pub(super) missed: f64,
    /// Unread records that commits do not explain.
    pub(super) backlog: f64,
}

impl Lane {
    /// Whether a committed offset is known.
    pub(super) fn has_commit(&self) -> bool {
        self.seen.is_some()
    }

    /// Forgets the committed offset, but not the rate.
    pub(super) fn lose_commit(&mut self) {
        self.seen = None;
    }

    /// Not heard of this time. Its committed offset is forgotten when it is too old.
    pub(super) fn miss(&mut self, now: f64, too_old: f64) {
        if now - self.heard_at > too_old {
            self.lose_commit();
        }
    }

    /// Takes in a committed offset and the lag that goes with it.
    pub(super) fn observe(
        &mut self,
        now: f64,
        committed: i64,
        lag: f64,
        below_start: bool,
        explained: Explained,
        median: Option<f64>,
    ) -> Step {
        self.heard_at = now;
        let Some(mut seen) = self
            .seen
            .filter(|seen| seen.committed <= committed && (below_start || !seen.below_start))
        else {
            let rewound = self.seen.is_some_and(|seen| committed < seen.committed);
            self.rate_max = None;
            self.seen = Some(Seen {
                committed,
                since: now,
                jumped_at: now,
                lag,
                gap: 0.0,
                window: None,
                idle: false,
                below_start,
            });
            return Step {
                rewound,
                ..Step::default()
            };
        };
        seen.below_start = below_start;
        let records = committed.saturating_sub(seen.committed) as f64;
        let mut step = Step::default();
        if records > 0.0 {
            self.missed *= MISS_MEMORY;
            step = self.jump(&mut seen, now, committed, lag, explained, median);
        } else if lag == 0.0 {
            step.jumped = Some(now - seen.jumped_at);
            seen.jumped_at = now;
            seen.lag = 0.0;
            seen.idle = true;
            seen.window.get_or_insert(Window {
                committed,
                since: now,
            });
        } else if lag > 2.0 {
            self.missed = 1.0;
        }
        self.seen = Some(seen);
        step
    }

    fn jump(
        &mut self,
        seen: &mut Seen,
        now: f64,
        committed: i64,
        lag: f64,
        explained: Explained,
        median: Option<f64>,
    ) -> Step {
        let gap = now - seen.jumped_at;
        let mut step = Step {
            jumped: Some(gap),
            ..Step::default()
        };
        let window = Window {
            committed,
            since: now,
        };
        match seen.window {
            None => {
                // The first jump says when a window begins, not how long the one before it was.
                let records = committed.saturating_sub(seen.committed) as f64;
                step.first_jump = Some(records);
                // A look comes up to `delta` after the commit.
                let seconds = now - seen.since - explained.delta;
                if seconds > explained.delta && lag > 0.5 * records {
                    self.rate_max = Some(records / seconds);
                }
                seen.window = Some(window);
                seen.idle = false;
            }
            Some(open) => {
                seen.gap = if seen.gap > 0.0 {
                    seen.gap + GAP_GAIN * (gap.min(3.0 * seen.gap) - seen.gap)
                } else {
                    gap
                };
                let caught_up =
                    |rate: Option<f64>| rate.is_some_and(|m| lag <= m * explained.delta_idle);
                seen.idle |= caught_up(self.rate);
                let seconds = now - open.since;
                if seconds >= 0.9 * WINDOW_SECONDS.max(2.0 * explained.delta) {
                    let records = committed.saturating_sub(open.committed) as f64;
                    let sample = FirstSample { records, seconds };
                    match median {
                        Some(median) => self.learn_rate(sample, seen.idle, explained, median),
                        None => step.first_sample = Some(sample),
                    }
                    seen.window = Some(window);
                    seen.idle = caught_up(self.rate);
                }
            }
        }
        seen.committed = committed;
        seen.jumped_at = now;
        seen.lag = lag;
        step
    }

    fn learn_rate(&mut self, sample: FirstSample, idle: bool, explained: Explained, median: f64) {
        let FirstSample { records, seconds } = sample;
        let lowest = records / (seconds + explained.delta_backlog);
        let slack = seconds - explained.delta_backlog;
        let highest = if slack > 0.0 {
            records / slack
        } else {
            f64::INFINITY
        };
        // A sample is believed only as far as it excludes the median.
        let believed = median.max(lowest).min(highest);
        let gain = 1.0 - (-seconds / WINDOW_SECONDS).exp();
        self.rate = Some(match self.rate {
            None => believed,
            Some(rate) if !idle => rate + gain * (believed - rate),
            // What it was sent, it read. Only more than chance sends says that it reads faster: a
            // partition with a higher rate is sent more, reads that, and would be taken for faster
            // still, commit after commit, until its consumer is full.
            Some(rate) => {
                let chance = CHANCE_DEVIATIONS * records.sqrt();
                let surely = (records - chance) / (seconds + explained.delta_backlog);
                rate + 0.5 * gain * (surely - rate).max(0.0)
            }
        });
    }

    /// The first rate of a lane, once the median of the first rates is there.
    pub(super) fn set_first_rate(
        &mut self,
        sample: FirstSample,
        explained: Explained,
        median: f64,
    ) {
        self.learn_rate(sample, false, explained, median);
        if let (Some(seen), Some(rate)) = (&mut self.seen, self.rate) {
            seen.idle = seen.lag <= rate * explained.delta_idle;
        }
    }

    /// The lag just after the last commit, in seconds at `rate`.
    pub(super) fn lag_after_commit(&self, rate: f64) -> f64 {
        self.seen.map_or(0.0, |seen| seen.lag / rate)
    }

    /// Learns the age of lag after a jump; `cap` bounds what one commit can say.
    pub(super) fn learn_lag_age(&mut self, cap: f64) {
        let Some(rate) = self.rate.filter(|rate| *rate > 0.0) else {
            return;
        };
        let now = self.lag_after_commit(rate).min(3.0 * cap);
        self.ages = self.ages.saturating_add(1);
        let gain = AGE_GAIN.max(1.0 / f64::from(self.ages));
        self.age += gain * (now - self.age);
    }

    /// The usual lag just after a commit, in seconds of consumption, once known.
    pub(super) fn lag_age(&self) -> Option<f64> {
        (self.ages >= AGES_MIN).then_some(self.age)
    }

    /// Whether a commit was seen to come.
    pub(super) fn has_jumped(&self) -> bool {
        self.seen.is_some_and(|seen| seen.window.is_some())
    }

    /// Its rate, or what is taken for it while it has none.
    pub(super) fn rate_or(&self, median: f64) -> f64 {
        let most = self.rate_max.unwrap_or(median);
        self.rate
            .unwrap_or(median.min(most).max(RATE_FLOOR * median))
    }

    /// The usual time between two commits, once known.
    pub(super) fn gap(&self) -> Option<f64> {
        let seen = self.seen?;
        (seen.gap > 0.0).then_some(seen.gap)
    }

    /// Works out the backlog from this observation's lag, and forgives a low rate to a partition
    /// that is caught up. `gap` is the time between commits that is usual in the group: it is taken
    /// for one that has only just begun to commit, and while it is not known either, any time
    /// without a commit is explained.
    pub(super) fn learn_backlog(
        &mut self,
        now: f64,
        lag: f64,
        jumped: Option<f64>,
        explained: Explained,
        median: f64,
        gap: Option<f64>,
    ) {
        let Some(seen) = self.seen else {
            self.backlog = 0.0;
            return;
        };
        let mut rate = self.rate_or(median).max(RATE_FLOOR * median);
        let quiet = now - seen.jumped_at;
        let gap = self.gap().or(gap).unwrap_or(f64::INFINITY);
        // Of a commit that was there before the first look nobody knows how old it was.
        let unseen = if seen.window.is_none() { gap } else { 0.0 };
        let caught_up = seen.lag <= rate * explained.delta_backlog;
        self.backlog = if caught_up && quiet <= gap + explained.delta_backlog {
            0.0
        } else {
            let explained = rate * (quiet.min(gap) + unseen + explained.delta_backlog);
            (lag - explained).max(0.0)
        };
        if self.rate.is_none() {
            return;
        }
        if let (Some(gap), true, true) = (jumped, caught_up, rate < median) {
            let gain = 1.0 - (-gap.min(1.0) / FORGIVE_SECONDS).exp();
            rate += gain * (median - rate);
        }
        self.rate = Some(rate);
    }

    /// The seconds since the committed offset moved or had no need to, and the usual time between
    /// two moves; `None` while only one was seen.
    pub(super) fn quiet(&self, now: f64) -> Option<(f64, f64)> {
        let seen = self.seen?;
        let usual = seen.gap > 0.0 || seen.window.is_none();
        usual.then_some((now - seen.jumped_at, seen.gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Explained = Explained {
        delta: 0.0,
        delta_backlog: 0.0,
        delta_idle: 0.0,
    };

    fn busy(lane: &mut Lane, now: f64, committed: i64) -> Step {
        lane.observe(now, committed, 1_000.0, false, NOTHING, Some(100.0))
    }

    #[test]
    fn the_first_jump_opens_the_window_and_the_next_ones_fill_it() {
        let mut lane = Lane::default();
        busy(&mut lane, 0.0, 0);
        let step = busy(&mut lane, 1.0, 500);
        assert_eq!(step.first_jump, Some(500.0));
        assert_eq!(lane.rate, None, "when the first 500 began is not known");
        busy(&mut lane, 2.0, 520);
        assert_eq!(lane.rate, Some(20.0));
    }

    #[test]
    fn an_idle_consumers_rate_is_a_lower_bound() {
        let mut lane = Lane::default();
        for (now, committed) in [(0.0, 0), (1.0, 100), (2.0, 200)] {
            busy(&mut lane, now, committed);
        }
        assert_eq!(lane.rate, Some(100.0));
        // Two records a second, nothing left over: it could do more.
        lane.observe(3.0, 202, 0.0, false, NOTHING, Some(100.0));
        lane.observe(4.0, 204, 0.0, false, NOTHING, Some(100.0));
        lane.observe(5.0, 206, 0.0, false, NOTHING, Some(100.0));
        assert!(lane.rate.unwrap() > 90.0, "{:?}", lane.rate);
    }

    /// A group that keeps up, whose records are shared out by the rates: what a partition is sent by
    /// chance must not be taken for what its consumer can do.
    #[test]
    fn chance_does_not_make_an_idle_consumer_fast() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut lane = Lane {
            rate: Some(80.0),
            ..Lane::default()
        };
        let mut committed = 0;
        lane.observe(0.0, 0, 0.0, false, NOTHING, Some(80.0));
        for commit in 1..=1_000 {
            // A count with a mean of 2,400 and the spread of a Poisson process.
            let spread: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
            committed += (2_400.0 + spread * 2_400f64.sqrt()) as i64;
            let now = f64::from(commit) * 30.0;
            lane.observe(now, committed, 0.0, false, NOTHING, Some(80.0));
        }
        let rate = lane.rate.unwrap();
        assert!(rate < 82.0, "{rate}");
        // More than chance is more.
        lane.observe(30_030.0, committed + 3_600, 0.0, false, NOTHING, Some(80.0));
        assert!(lane.rate.unwrap() > rate + 5.0, "{lane:?}");
    }

    #[test]
    fn a_sample_is_believed_only_as_far_as_it_excludes_the_median() {
        let explained = Explained {
            delta: 0.5,
            delta_backlog: 0.5,
            delta_idle: 0.5,
        };
        let rate = |records: i64| {
            let mut lane = Lane::default();
            for (now, committed) in [(0.0, 0), (1.0, 100), (3.0, 100 + records)] {
                lane.observe(now, committed, 1_000.0, false, explained, Some(90.0));
            }
            lane.rate.unwrap()
        };
        // 150 in 2 s, give or take half a second: 60 to 100 a second, which the median may be.
        assert_eq!(rate(150), 90.0);
        assert_eq!(rate(30), 20.0, "at most 30 in 1.5 s");
        assert_eq!(rate(500), 200.0, "at least 500 in 2.5 s");
    }

    #[test]
    fn a_partition_that_is_caught_up_is_forgiven_its_low_rate() {
        let mut lane = Lane {
            rate: Some(1.0),
            ..Lane::default()
        };
        lane.observe(0.0, 0, 0.0, false, NOTHING, Some(100.0));
        let mut last = 0.0;
        for second in 1..=10 {
            let now = f64::from(second);
            let step = lane.observe(now, 0, 0.0, false, NOTHING, Some(100.0));
            lane.learn_backlog(now, 0.0, step.jumped, NOTHING, 100.0, None);
            let rate = lane.rate.unwrap();
            assert!(rate > last && rate < 100.0, "{rate}");
            last = rate;
        }
        assert!(last > 80.0, "{last}");
    }

    #[test]
    fn a_partition_believed_dead_keeps_a_trickle() {
        let mut lane = Lane {
            rate: Some(1e-6),
            ..Lane::default()
        };
        lane.observe(0.0, 0, 500.0, false, NOTHING, Some(100.0));
        lane.learn_backlog(0.0, 500.0, None, NOTHING, 100.0, None);
        assert_eq!(lane.rate, Some(2.0));
    }

    #[test]
    fn a_commit_that_goes_back_starts_anew_and_keeps_the_rate() {
        let mut lane = Lane::default();
        for (now, committed) in [(0.0, 0), (1.0, 100), (2.0, 200)] {
            busy(&mut lane, now, committed);
        }
        let step = busy(&mut lane, 3.0, 50);
        assert!(step.rewound && step.jumped.is_none());
        assert_eq!(lane.rate, Some(100.0));
        let step = busy(&mut lane, 4.0, 150);
        assert_eq!(step.first_jump, Some(100.0));
    }

    #[test]
    fn a_jump_over_deleted_records_is_no_consumption() {
        let mut lane = Lane::default();
        for (now, committed) in [(0.0, 0), (1.0, 100), (2.0, 200)] {
            busy(&mut lane, now, committed);
        }
        lane.observe(3.0, 200, 1_000.0, true, NOTHING, Some(100.0));
        let step = busy(&mut lane, 4.0, 1_000_000);
        assert_eq!(step, Step::default());
        assert_eq!(lane.rate, Some(100.0));
    }

    #[test]
    fn what_the_time_between_commits_explains_is_no_backlog() {
        let mut lane = Lane::default();
        let explained = Explained {
            delta: 1.0,
            delta_backlog: 0.5,
            delta_idle: 0.5,
        };
        // A commit every 5 s at 100 a second, caught up at each.
        for (now, committed) in [(0.0, 0), (5.0, 500), (10.0, 1_000), (15.0, 1_500)] {
            lane.observe(now, committed, 10.0, false, explained, Some(100.0));
        }
        lane.observe(19.0, 1_500, 410.0, false, explained, Some(100.0));
        lane.learn_backlog(19.0, 410.0, None, explained, 100.0, None);
        assert_eq!(lane.backlog, 0.0);
        // The next commit is overdue: what a gap and a half second do not explain is backlog.
        lane.observe(23.0, 1_500, 810.0, false, explained, Some(100.0));
        lane.learn_backlog(23.0, 810.0, None, explained, 100.0, None);
        assert!((lane.backlog - 260.0).abs() < 1.0, "{}", lane.backlog);
    }

    #[test]
    fn a_first_commit_bounds_the_rate_of_a_consumer_that_is_behind() {
        let bound = |lag: f64| {
            let mut lane = Lane::default();
            lane.observe(0.0, 0, 0.0, false, NOTHING, None);
            lane.observe(10.0, 200, lag, false, NOTHING, None);
            assert_eq!(lane.rate, None, "a rate needs a second commit");
            lane.rate_or(100.0)
        };
        assert_eq!(bound(600.0), 20.0, "no more than 200 in 10 s");
        assert_eq!(bound(5.0), 100.0, "it may have waited for records");
    }

    #[test]
    fn before_the_time_between_commits_is_known_any_quiet_is_explained() {
        let backlog = |lag_then: f64, gap: Option<f64>| {
            let mut lane = Lane::default();
            lane.observe(0.0, 0, 0.0, false, NOTHING, None);
            lane.observe(10.0, 1_000, lag_then, false, NOTHING, None);
            lane.learn_backlog(25.0, lag_then + 1_200.0, None, NOTHING, 80.0, gap);
            lane.backlog
        };
        assert_eq!(backlog(0.0, None), 0.0);
        assert_eq!(backlog(0.0, Some(20.0)), 0.0);
        // By what is usual in the group the next commit is overdue: only five seconds are explained.
        assert_eq!(backlog(0.0, Some(5.0)), 800.0);
        assert_eq!(
            backlog(700.0, None),
            700.0,
            "what the commit left is behind"
        );
    }

    #[test]
    fn a_commit_from_before_the_first_look_may_be_as_old_as_commits_get() {
        let backlog = |gap: Option<f64>| {
            let mut lane = Lane::default();
            lane.observe(0.0, 0, 5_000.0, false, NOTHING, None);
            lane.learn_backlog(10.0, 5_000.0, None, NOTHING, 100.0, gap);
            lane.backlog
        };
        assert_eq!(backlog(None), 0.0);
        assert_eq!(backlog(Some(20.0)), 2_000.0);
    }
}
