//! `limits.requests_per_minute`: a bucket per endpoint, full at first, refilled evenly.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use stockade_policy::Terms;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// The buckets of all endpoints that have a rate. As many as policies had such endpoints since the start.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Bucket>>);

struct Bucket {
    /// Requests left, in parts.
    left: f64,
    at: Instant,
}

impl Rates {
    /// Takes one request from the endpoint's bucket.
    ///
    /// # Errors
    /// When there is none left: how long it takes until there is.
    pub(crate) fn take(&self, terms: &Terms) -> Result<(), Duration> {
        let Some(rate) = terms.limits.requests_per_minute else { return Ok(()) };
        let (rate, now) = (f64::from(rate), Instant::now());
        // A count is changed in one step; nothing can be half done.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match buckets.get_mut(&terms.endpoint) {
            Some(bucket) => bucket,
            None => buckets.entry(terms.endpoint.clone()).or_insert(Bucket { left: rate, at: now }),
        };
        let refill = rate * (now - bucket.at).as_secs_f64() / MINUTE.as_secs_f64();
        bucket.left = (bucket.left + refill).min(rate);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(MINUTE.mul_f64(((1.0 - bucket.left) / rate).min(1.0)));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::terms;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_refills_evenly() {
        let rates = Rates::default();
        let mut six = terms();
        six.limits.requests_per_minute = Some(6);
        let taken = |rates: &Rates| (0..20).filter(|_| rates.take(&six).is_ok()).count();
        assert_eq!(taken(&rates), 6);
        assert_eq!(rates.take(&six).unwrap_err().as_secs(), 10);
        tokio::time::advance(Duration::from_secs(21)).await;
        assert_eq!(taken(&rates), 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&rates), 6, "never more than a minute's");
        let mut other = terms();
        other.endpoint = "other".into();
        assert!((0..100).all(|_| rates.take(&other).is_ok()), "no rate");
    }
}
