//! The adapters against kafka-protocol's own encoders and decoders, in every version.

mod answers;
mod codes;
mod records;

use super::*;
use crate::testing::answer_bytes;
use answers::every_answer;
use kafka_protocol::messages as wire;
use kafka_protocol::protocol::buf::ByteBuf;
use proptest::prelude::*;
use records::{fetch_answer, produce_answer};

const ID: TopicId = TopicId([7; 16]);

fn header_version(api: ApiKey, version: i16) -> i16 {
    wire::ApiKey::try_from(api.number())
        .unwrap()
        .response_header_version(version)
}

fn every_version() -> impl Iterator<Item = (ApiKey, i16, Vec<u8>)> {
    let versions = |api: &ApiKey| {
        schema::of(*api).versions.clone().map({
            let api = *api;
            move |version| (api, version)
        })
    };
    let all = ApiKey::ALL.iter().flat_map(versions);
    all.filter_map(|(api, version)| Some((api, version, every_answer(api, version)?)))
}

#[test]
fn the_walk_passes_every_proper_answer_to_its_last_byte() {
    for (api, version, bytes) in every_version() {
        assert!(
            decode_any(api, version, bytes.clone().into()),
            "{api} {version}"
        );
        let header = usize::from(header_version(api, version) >= 1);
        let body = &bytes[header..];
        schema::of(api).walk(version, body).unwrap();
        if let Some((_, short)) = body.split_last() {
            assert!(
                schema::of(api).walk(version, short).is_err(),
                "{api} {version} one byte short"
            );
        }
    }
}

#[test]
fn no_prefix_of_an_answer_and_no_flipped_byte_panics() {
    let fetches = (4..=17).map(|v| (ApiKey::Fetch, v, fetch_answer(v, Bytes::from_static(b"r"))));
    let fetches = fetches.map(|(api, v, answer)| (api, v, answer_bytes(v, &answer)));
    let produces = produce::VERSIONS.map(|v| (ApiKey::Produce, v, produce_answer(v)));
    let produces = produces.map(|(api, v, answer)| (api, v, answer_bytes(v, &answer)));
    for (api, version, bytes) in every_version().chain(fetches).chain(produces) {
        for length in 0..bytes.len() {
            decode_any(api, version, Bytes::copy_from_slice(&bytes[..length]));
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                decode_any(api, version, bytes.into());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(
        api in 0..ApiKey::ALL.len(),
        version in 0i16..19,
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..80),
    ) {
        decode_any(ApiKey::ALL[api], version, bytes.into());
    }
}

#[test]
fn metadata_partition_numbers_cannot_ask_for_memory() {
    use wire::metadata_response as of;
    let partition = |index| {
        of::MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(1.into())
    };
    let topic = of::MetadataResponseTopic::default()
        .with_name(Some(wire::TopicName("orders".into())))
        .with_partitions(vec![partition(i32::MAX), partition(1), partition(-5)]);
    let broker = of::MetadataResponseBroker::default()
        .with_node_id(1.into())
        .with_port(70_000);
    let answer = wire::MetadataResponse::default()
        .with_topics(vec![topic])
        .with_brokers(vec![broker]);
    let read = metadata::read(12, answer_bytes(12, &answer).into()).unwrap();
    assert!(read.brokers.is_empty(), "no such port");
    let leaders: Vec<_> = read.topics[0].partitions.iter().map(|p| p.leader).collect();
    assert_eq!(leaders, [None, Some(BrokerId(1)), None]);
}

#[test]
fn a_header_with_tagged_fields_is_skipped() {
    let mut bytes = Bytes::from_static(&[2, 0, 1, 9, 5, 2, 8, 8, 42]);
    skip_header_tags(&mut bytes).unwrap();
    assert_eq!(bytes.get_bytes(1)[..], [42]);
    assert!(skip_header_tags(&mut Bytes::from_static(&[1, 0, 9])).is_err());
}
