//! What is made of a server's answers.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn sample(name: &str, partition: &str, value: &str) -> Value {
    let metric = json!({"__name__": name, "consumergroup": "billing", "topic": "orders",
        "partition": partition});
    json!({"metric": metric, "value": [1_700_000_010.5, value]})
}

fn answer(samples: &[Value]) -> Value {
    json!({"status": "success", "data": {"resultType": "vector", "result": samples}})
}

fn scraped() -> Value {
    let metric = json!({"consumergroup": "billing"});
    answer(&[json!({"metric": metric, "value": [1_700_000_010.5, "1700000008.5"]})])
}

fn asked(group: &str) -> Asked {
    Asked {
        group: group.into(),
        topics: vec!["orders".into()],
    }
}

fn found(samples: &[Value]) -> (Found, Instant) {
    let mut source = PrometheusSource::new("http://localhost:9090").unwrap();
    let began = Instant::now();
    let measured = Measured::read(&answer(samples), &scraped());
    (source.found(&asked("billing"), &measured, began), began)
}

fn at(high_watermark: i64) -> End {
    End::At {
        high_watermark,
        log_start: None,
        last_stable: None,
    }
}

#[test]
fn the_end_is_the_commit_and_the_lag_and_the_age_is_the_scrapes() {
    let (found, began) = found(&[
        sample(LAG, "0", "5"),
        sample(COMMITTED, "0", "10"),
        sample(LAG, "1", "0"),
        sample(COMMITTED, "1", "7"),
    ]);
    assert_eq!(began - found.taken_at, Duration::from_secs(2));
    let partitions = &found.topics[0].partitions;
    assert_eq!(
        (partitions[0].committed, partitions[0].end),
        (Committed::At(10), at(15))
    );
    assert_eq!(
        (partitions[1].committed, partitions[1].end),
        (Committed::At(7), at(7))
    );
}

#[test]
fn an_exporters_own_age_counts_and_the_same_look_scraped_twice_is_no_news() {
    let mut source = PrometheusSource::new("http://localhost:9090").unwrap();
    let mut look = |began: Instant, scraped_at: &str, age: &str| {
        let metric = json!({"__name__": AGE, "consumergroup": "billing"});
        let age = json!({"metric": metric, "value": [1_700_000_010.5, age]});
        let samples = [sample(LAG, "0", "5"), sample(COMMITTED, "0", "10"), age];
        let metric = json!({"consumergroup": "billing"});
        let scraped = answer(&[json!({"metric": metric, "value": [1_700_000_010.5, scraped_at]})]);
        let measured = Measured::read(&answer(&samples), &scraped);
        source.found(&asked("billing"), &measured, began).taken_at
    };
    let began = Instant::now();
    let first = look(began, "1700000008.5", "4");
    assert_eq!(began - first, Duration::from_secs(6));
    let began = began + Duration::from_secs(1);
    assert_eq!(look(began, "1700000009.5", "5.004"), first);
    assert!(look(began, "1700000010.5", "0.5") > first);
}

/// Trap: exporters say -1 for a group that has committed nothing.
#[test]
fn minus_one_is_no_commit_and_no_lag() {
    let (found, _) = found(&[sample(LAG, "0", "-1"), sample(COMMITTED, "0", "-1")]);
    let partition = found.topics[0].partitions[0];
    assert_eq!(partition.committed, Committed::Nothing);
    assert_eq!(partition.end, End::Unknown(None));
}

#[test]
fn a_partition_that_is_not_measured_is_unknown_and_no_number_is_an_allocation() {
    let (found, _) = found(&[
        sample(LAG, "2", "5"),
        sample(COMMITTED, "2", "10"),
        sample(LAG, "18446744073709551615", "5"),
        sample(LAG, "-1", "5"),
    ]);
    let partitions = &found.topics[0].partitions;
    assert_eq!(partitions[0].committed, Committed::Unknown(None));
    assert_eq!(partitions[2].end, at(15));
    assert!(partitions.len() <= 2 + UNMEASURED_MAX);
}

#[test]
fn a_group_that_the_server_does_not_know_is_unknown() {
    let mut source = PrometheusSource::new("http://localhost:9090/prefix").unwrap();
    let measured = Measured::read(&answer(&[]), &scraped());
    let found = source.found(&asked("audit"), &measured, Instant::now());
    assert_eq!(found.standing, Standing::Unknown(None));
    assert_eq!(
        source.query.as_str(),
        "http://localhost:9090/prefix/api/v1/query"
    );
}

#[test]
fn names_of_groups_are_no_part_of_the_query_language() {
    let (offsets, _) = queries(&[asked("a.b"), asked("c\"} or up{x=\"")]);
    assert!(
        offsets.contains(r#"consumergroup=~"a\\.b|c\"\\} or up\\{x=\"""#),
        "{offsets}"
    );
}

proptest! {
    #[test]
    fn any_samples_are_survived(
        values in proptest::collection::vec((".{0,20}", ".{0,20}"), 0..20)
    ) {
        let samples: Vec<Value> = values.iter().map(|(p, v)| sample(LAG, p, v)).collect();
        let (found, _) = found(&samples);
        prop_assert!(found.topics[0].partitions.len() <= samples.len() + UNMEASURED_MAX);
    }
}
