//! The study's VQ-3, which this project's choice is measured against: the same pick, with an observer
//! that takes the time between commits from their gaps alone.

use super::choice::Chooser;
use super::world::Offsets;
use fastrand::Rng;

const CANDIDATES: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Lane {
    rate: Option<f64>,
    /// Committed offset, time and lag at the last commit seen, and the smoothed time between two.
    committed: f64,
    jumped_at: f64,
    jumped_lag: f64,
    gap: f64,
    end: f64,
    /// Its queue as carried on between looks: own and others' sends, backlog, and as of when.
    sent: f64,
    backlog: f64,
    at: f64,
    share: f64,
}

#[derive(Debug)]
pub(super) struct Vq3 {
    refresh: f64,
    lanes: Vec<Lane>,
    looked_at: Option<f64>,
    arrival: f64,
    own: f64,
    own_records: f64,
    median: f64,
}

fn gain(seconds: f64, memory: f64) -> f64 {
    1.0 - (-seconds / memory).exp()
}

impl Vq3 {
    pub(super) fn new(partitions: usize, refresh: f64) -> Self {
        let lane = Lane {
            rate: None,
            committed: 0.0,
            jumped_at: 0.0,
            jumped_lag: 0.0,
            gap: 0.0,
            end: 0.0,
            sent: 0.0,
            backlog: 0.0,
            at: 0.0,
            share: 0.0,
        };
        Self {
            refresh,
            lanes: vec![lane; partitions],
            looked_at: None,
            arrival: 0.0,
            own: 0.0,
            own_records: 0.0,
            median: 0.0,
        }
    }

    fn learn_arrivals(&mut self, elapsed: f64, seen: &[Offsets]) {
        let grown: f64 = self
            .lanes
            .iter()
            .zip(seen)
            .map(|(lane, offsets)| offsets.end as f64 - lane.end)
            .sum();
        if elapsed > 0.0 {
            let part = gain(elapsed, 3.0);
            self.arrival += part * (grown / elapsed - self.arrival);
            self.own += part * (self.own_records / elapsed - self.own);
        }
        self.own_records = 0.0;
    }

    /// How many records of all producers one own record stands for.
    fn scale(&self) -> f64 {
        let most = (0.25 * self.median).max(1.0);
        if self.own > 0.0 {
            (self.arrival / self.own).clamp(1.0, most)
        } else {
            most
        }
    }

    /// The shares by which all partitions would be drained at the same time.
    fn share_out(&mut self) {
        let amount = (self.arrival * (0.5 * self.refresh).max(0.25)).max(1.0);
        let median = self.median;
        let rate = |lane: &Lane| lane.rate.unwrap_or(median);
        let mut order: Vec<(f64, f64)> = self
            .lanes
            .iter()
            .map(|lane| (rate(lane), lane.backlog))
            .collect();
        order.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        let (mut rates, mut backlogs, mut level) = (0.0, 0.0, f64::INFINITY);
        for (rate, backlog) in order {
            if backlog / rate >= level {
                break;
            }
            rates += rate;
            backlogs += backlog;
            level = (amount + backlogs) / rates;
        }
        for lane in &mut self.lanes {
            lane.share = (level * rate(lane) - lane.backlog).max(0.0) / amount;
        }
    }

    fn wait(&mut self, at: usize, now: f64) -> f64 {
        let (scale, median) = (self.scale(), self.median);
        let others = (self.arrival - scale * self.own).max(0.0);
        let Some(lane) = self.lanes.get_mut(at) else {
            return f64::INFINITY;
        };
        let rate = lane.rate.unwrap_or(median);
        let elapsed = now - lane.at;
        let can_read = rate * elapsed;
        let drained = (0.5 * can_read).min(lane.backlog);
        lane.backlog -= drained;
        let arrived = others * lane.share * elapsed;
        lane.sent = (lane.sent + arrived - (can_read - 2.0 * drained)).max(0.0);
        lane.at = now;
        (lane.sent + lane.backlog + scale) / rate
    }
}

impl Lane {
    fn look(&mut self, now: f64, elapsed: f64, refresh: f64, seen: Offsets) {
        let (lag, committed) = (seen.lag() as f64, seen.committed as f64);
        let moved = committed - self.committed;
        if moved > 0.0 {
            let gap = now - self.jumped_at;
            let rate = moved / gap.max(1e-6);
            let busy = self.jumped_lag >= moved && self.jumped_lag > 2.0;
            let part = gain(gap, 1.0);
            self.rate = Some(match self.rate {
                None => rate,
                Some(known) if busy => known + part * (rate - known),
                Some(known) if rate > known => known + 0.5 * part * (rate - known),
                Some(known) => known,
            });
            self.gap = if self.gap > 0.0 {
                self.gap + 0.3 * (gap.min(3.0 * self.gap) - self.gap)
            } else {
                gap
            };
            (self.committed, self.jumped_lag) = (committed, lag);
            // A commit was somewhere between two looks.
            let late = if self.gap > 1.5 * refresh {
                0.5 * refresh
            } else {
                0.0
            };
            self.jumped_at = now - late;
        } else if lag > 0.0 && now - self.jumped_at > 2.5 * self.gap.max(refresh) {
            let decay = (-elapsed / self.gap.max(refresh)).exp().max(0.3);
            self.rate = self.rate.map(|rate| rate * decay);
        }
        if lag == 0.0 {
            (self.jumped_at, self.jumped_lag) = (now, 0.0);
        }
        self.end = seen.end as f64;
    }

    fn settle(&mut self, now: f64, elapsed: f64, lag: f64, median: f64) {
        let explained = |rate: f64| rate * (now - self.jumped_at).min(self.gap);
        let backlog = |rate: f64| (lag - explained(rate)).max(0.0);
        let mut rate = self.rate.unwrap_or(median);
        self.backlog = backlog(rate);
        if self.backlog < 0.02 * median && rate < median {
            // Whoever has nothing to read is forgiven what was seen of it before.
            rate += gain(elapsed, 5.0) * (median - rate);
        }
        rate = rate.max(0.02 * median);
        if self.backlog < 0.02 * rate {
            self.backlog = 0.0;
        }
        self.rate = self.rate.map(|_| rate);
        (self.sent, self.at) = (0.0, now);
    }
}

impl Chooser for Vq3 {
    fn look(&mut self, now: f64, seen: &[Offsets]) {
        let elapsed = self.looked_at.map_or(0.0, |at| now - at);
        if self.looked_at.is_none() {
            for (lane, offsets) in self.lanes.iter_mut().zip(seen) {
                lane.committed = offsets.committed as f64;
                lane.jumped_at = now;
                lane.jumped_lag = offsets.lag() as f64;
                lane.end = offsets.end as f64;
            }
        }
        self.learn_arrivals(elapsed, seen);
        self.looked_at = Some(now);
        for (lane, offsets) in self.lanes.iter_mut().zip(seen) {
            lane.look(now, elapsed, self.refresh, *offsets);
        }
        let mut rates: Vec<f64> = self.lanes.iter().filter_map(|lane| lane.rate).collect();
        rates.sort_by(f64::total_cmp);
        let Some(median) = rates.get(rates.len() / 2).copied() else {
            return;
        };
        self.median = median;
        for (lane, offsets) in self.lanes.iter_mut().zip(seen) {
            lane.settle(now, elapsed, offsets.lag() as f64, median);
        }
        self.share_out();
    }

    fn choose(&mut self, now: f64, most: u32, rng: &mut Rng) -> (usize, u32) {
        let count = self.lanes.len();
        let records = f64::from(most);
        self.own_records += records;
        if self.median <= 0.0 {
            return (rng.usize(..count), most);
        }
        let mut best = (f64::INFINITY, 0);
        let mut drawn = [usize::MAX; CANDIDATES];
        for turn in 0..CANDIDATES.min(count) {
            let at = loop {
                let at = rng.usize(..count);
                if !drawn.contains(&at) {
                    break at;
                }
            };
            if let Some(place) = drawn.get_mut(turn) {
                *place = at;
            }
            let wait = self.wait(at, now);
            if wait < best.0 {
                best = (wait, at);
            }
        }
        let scale = self.scale();
        if let Some(lane) = self.lanes.get_mut(best.1) {
            lane.sent += scale * records;
        }
        (best.1, most)
    }
}
