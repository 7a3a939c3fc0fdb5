//! The cluster against fake brokers that share one world.

mod connections;
mod views;

use super::*;
use crate::api_key::ApiKey;
use crate::testing::{Asked, Net, answer_bytes, every_version};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use ottla_proto::Code;
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

/// What the fake brokers all know.
#[derive(Default)]
struct World {
    brokers: BTreeMap<i32, (String, i32)>,
    /// Topic code and the partitions' leaders with their epochs.
    topics: BTreeMap<String, (i16, Vec<(i32, i32)>)>,
    /// What FindCoordinator answers, one after another; the last stays.
    coordinators: VecDeque<(i16, i32)>,
    metadata_asked: Vec<Vec<String>>,
    finds: usize,
    /// Every broker hangs up when asked.
    dead: bool,
    throttle_ms: i32,
}

type Shared = Arc<Mutex<World>>;

impl World {
    fn metadata(&mut self, request: &MetadataRequest) -> MetadataResponse {
        let names = request
            .topics
            .iter()
            .flatten()
            .flat_map(|topic| topic.name.clone());
        let names: Vec<String> = match &request.topics {
            None => self.topics.keys().cloned().collect(),
            Some(_) => names.map(|name| name.to_string()).collect(),
        };
        let topics = names.iter().map(|name| self.topic(name)).collect();
        self.metadata_asked.push(names);
        let brokers = self.brokers.iter().map(|(id, (host, port))| {
            MetadataResponseBroker::default()
                .with_node_id((*id).into())
                .with_host(host.clone().into())
                .with_port(*port)
        });
        MetadataResponse::default()
            .with_throttle_time_ms(self.throttle_ms)
            .with_brokers(brokers.collect())
            .with_topics(topics)
    }

    fn topic(&self, name: &str) -> MetadataResponseTopic {
        let unknown = (Code::UNKNOWN_TOPIC_OR_PARTITION.0, Vec::new());
        let (code, partitions) = self.topics.get(name).unwrap_or(&unknown);
        let partitions = partitions.iter().zip(0..).map(|((leader, epoch), index)| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id((*leader).into())
                .with_leader_epoch(*epoch)
        });
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(name.to_owned().into())))
            .with_topic_id(Uuid::from_bytes([3; 16]))
            .with_error_code(*code)
            .with_partitions(partitions.collect())
    }

    fn coordinator(&mut self, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        self.finds += 1;
        let (code, id) = match self.coordinators.len() {
            0 => (Code::COORDINATOR_NOT_AVAILABLE.0, -1),
            1 => self.coordinators[0],
            _ => self.coordinators.pop_front().unwrap(),
        };
        let (host, port) = self.brokers.get(&id).cloned().unwrap_or_default();
        let one = Coordinator::default()
            .with_key(request.coordinator_keys[0].clone())
            .with_error_code(code)
            .with_node_id(id.into())
            .with_host(host.into())
            .with_port(port);
        FindCoordinatorResponse::default().with_coordinators(vec![one])
    }
}

fn answer(world: &Shared, asked: &Asked) -> Option<Vec<u8>> {
    if world.lock().dead {
        return None;
    }
    Some(match asked.api {
        ApiKey::ApiVersions => answer_bytes(asked.version, &every_version()),
        ApiKey::Metadata => {
            let metadata = world.lock().metadata(&asked.body());
            answer_bytes(asked.version, &metadata)
        }
        ApiKey::FindCoordinator => {
            let found = world.lock().coordinator(&asked.body());
            answer_bytes(asked.version, &found)
        }
        _ => return None,
    })
}

/// Three brokers `b1:1` to `b3:3` and the topic `orders` with a partition on each.
fn three_brokers() -> (Net, Shared) {
    let net = Net::default();
    let world: Shared = Shared::default();
    for id in 1..=3 {
        world.lock().brokers.insert(id, (format!("b{id}"), id));
        serve(&net, &world, id);
    }
    world
        .lock()
        .topics
        .insert("orders".to_owned(), (0, vec![(1, 1), (2, 1), (3, 1)]));
    (net, world)
}

fn serve(net: &Net, world: &Shared, id: i32) {
    let world = Arc::clone(world);
    net.serve(&format!("b{id}"), id as u16, move |asked| {
        answer(&world, asked)
    });
}

fn settings(bootstrap: &[&str]) -> Settings {
    Settings {
        bootstrap: bootstrap
            .iter()
            .map(|&address| address.to_owned())
            .collect(),
        seed: 42,
        ..Settings::default()
    }
}

async fn connect(net: &Net, bootstrap: &[&str]) -> Result<Cluster> {
    Cluster::connect(settings(bootstrap), Arc::new(net.clone())).await
}

fn soon() -> Instant {
    Instant::now() + 5 * SECOND
}
