//! Rates of what arrives.

/// Over how long arrival rates are smoothed, in seconds.
const ARRIVAL_SECONDS: f64 = 3.0;

/// A rate smoothed over [`ARRIVAL_SECONDS`]; the first sample counts in full.
#[derive(Debug, Default)]
pub(super) struct Smoothed(Option<f64>);

impl Smoothed {
    pub(super) fn learn(&mut self, rate: f64, seconds: f64) {
        let gain = 1.0 - (-seconds / ARRIVAL_SECONDS).exp();
        self.0 = Some(self.0.map_or(rate, |known| known + gain * (rate - known)));
    }

    /// 0 until known.
    pub(super) fn get(&self) -> f64 {
        self.0.unwrap_or(0.0)
    }

    /// `None` until known.
    pub(super) fn known(&self) -> Option<f64> {
        self.0
    }
}
