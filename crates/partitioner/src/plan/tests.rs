use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn weighted(topic: &str, taken_at: Instant, weights: &[f64]) -> TopicPlan {
    TopicPlan::weighted(topic.into(), taken_at, SECOND, weights)
}

#[test]
fn counts_outlive_the_plan_they_were_made_under() {
    let (mut publisher, reader) = plan_channel();
    let now = Instant::now();
    publisher.publish(vec![
        weighted("b", now, &[1.0; 2]),
        weighted("a", now, &[1.0]),
    ]);
    let held = reader.load();
    publisher.publish(vec![weighted("b", now + SECOND, &[1.0; 2])]);
    // A producer that still holds the old plan counts into the same tally.
    held.as_deref()
        .unwrap()
        .topic("b")
        .unwrap()
        .tally()
        .of(0)
        .unwrap()
        .add_records(1, 7);
    assert_eq!(publisher.sent("b"), 7);
    // More partitions: what was counted is kept.
    publisher.publish(vec![weighted("b", now + 2 * SECOND, &[1.0; 4])]);
    assert_eq!(publisher.sent("b"), 7);
    let counters = reader.counters();
    assert_eq!(counters.topics.len(), 1);
    assert_eq!(counters.topics[0].records, [0, 7, 0, 0]);
    assert_eq!(counters.topics[0].taken_at, now + 2 * SECOND);
    assert_eq!(publisher.sent("a"), 0);
}

/// When the plan that this thread goes by was taken.
fn taken_at(reader: &PlanReader, topic: &str) -> Result<Instant, Fallback> {
    reader.with(topic, |topic| Ok(topic?.taken_at))
}

#[test]
fn a_thread_goes_by_the_newest_plan_of_each_reader_and_topic() {
    let now = Instant::now();
    let (mut one, reader) = plan_channel();
    let (mut other, of_other) = plan_channel();
    assert_eq!(taken_at(&reader, "a"), Err(Fallback::NoPlan));
    let stamp = |reader: &PlanReader| reader.shared.stamp.load(Ordering::Relaxed);
    assert_ne!(stamp(&reader), stamp(&of_other));
    one.publish(vec![weighted("a", now, &[1.0])]);
    assert_eq!(taken_at(&reader, "a"), Ok(now));
    assert_eq!(taken_at(&of_other, "a"), Err(Fallback::NoPlan));
    other.publish(vec![weighted("a", now + SECOND, &[1.0])]);
    let b = weighted("b", now + 3 * SECOND, &[1.0]);
    one.publish(vec![weighted("a", now + 2 * SECOND, &[1.0]), b]);
    for _ in 0..2 {
        assert_eq!(taken_at(&reader, "a"), Ok(now + 2 * SECOND));
        assert_eq!(taken_at(&of_other, "a"), Ok(now + SECOND));
        assert_eq!(taken_at(&reader, "b"), Ok(now + 3 * SECOND));
        assert_eq!(taken_at(&of_other, "b"), Err(Fallback::UnknownTopic));
    }
    one.publish(vec![]);
    assert_eq!(taken_at(&reader, "a"), Err(Fallback::UnknownTopic));
}

#[test]
fn replaced_plans_are_kept_while_a_thread_goes_by_them_and_no_longer() {
    let now = Instant::now();
    let (mut publisher, reader) = plan_channel();
    for at in 1..10 {
        publisher.publish(vec![weighted("a", now + at * SECOND, &[1.0])]);
        assert_eq!(taken_at(&reader, "a"), Ok(now + at * SECOND));
        let kept = publisher.replaced.iter().map(|topic| topic.taken_at);
        let last = (at > 1).then(|| now + (at - 1) * SECOND);
        assert_eq!(kept.collect::<Vec<_>>(), Vec::from_iter(last));
    }
}

#[test]
fn a_plan_ages_from_fresh_to_rates_only_to_nothing() {
    let now = Instant::now();
    let plan = weighted("a", now, &[1.0]);
    assert_eq!(plan.age(now), Some((0.0, Age::Fresh)));
    assert_eq!(
        plan.age(now - SECOND),
        Some((0.0, Age::Fresh)),
        "a clock that ran ahead"
    );
    assert_eq!(plan.age(now + 3 * SECOND), Some((3.0, Age::Fresh)));
    assert_eq!(plan.age(now + 4 * SECOND), Some((4.0, Age::Stale)));
    assert_eq!(plan.age(now + 60 * SECOND), Some((60.0, Age::Stale)));
    assert_eq!(plan.age(now + 61 * SECOND), None);
    let slow = TopicPlan::weighted("a".into(), now, 30 * SECOND, &[1.0]);
    assert!(
        slow.age(now + 100 * SECOND).is_some(),
        "slow refreshes are not too old"
    );
}

#[test]
fn counters_are_ordered_as_the_reasons() {
    for (at, reason) in Fallback::ALL.into_iter().enumerate() {
        assert_eq!(at, reason as usize, "{reason}");
    }
}

#[test]
fn plans_without_any_figure_are_uniform_and_say_why() {
    let now = Instant::now();
    let none = Drain {
        partitions: vec![],
        arrival_rate: 0.0,
        own_rate: 0.0,
    };
    let drain = TopicPlan::drain("a".into(), now, SECOND, &none);
    assert_eq!(drain.method(), Method::Uniform(Fallback::NoRates));
    assert_eq!(
        weighted("a", now, &[0.0]).method(),
        Method::Uniform(Fallback::NoWeights)
    );
}
