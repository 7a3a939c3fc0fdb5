//! Topics: list, describe, create, delete.

use ottla_proto::cluster::Topic;
use ottla_proto::{Code, Error, ErrorKind, Result, TopicId};
use ottla_wire::api::{create_topics, delete_topics, describe_configs};
use ottla_wire::{ApiKey, Cluster};
use std::sync::Arc;
use std::time::Duration;

/// How long a new or deleted topic may take to show in metadata.
const SHOWS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct NewTopic {
    name: Arc<str>,
    partitions: Option<i32>,
    replication: Option<i16>,
    configs: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl NewTopic {
    /// A topic with the cluster's default number of partitions and copies.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication: None,
            configs: Vec::new(),
        }
    }

    /// How many partitions.
    pub fn partitions(mut self, count: i32) -> Self {
        self.partitions = Some(count);
        self
    }

    /// How many copies of each.
    pub fn replication(mut self, count: i16) -> Self {
        self.replication = Some(count);
        self
    }

    /// What becomes of old records.
    #[doc(alias = "cleanup.policy")]
    pub fn cleanup_policy(self, policy: CleanupPolicy) -> Self {
        self.config("cleanup.policy", policy.name())
    }

    /// What an existing topic has otherwise, each in one clause.
    fn differences(&self, found: &Topic) -> Vec<String> {
        let mut differences = Vec::new();
        let count = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
        if let Some(wanted) = self.partitions.filter(|wanted| *wanted != count) {
            differences.push(format!("partitions is {count}, not {wanted}"));
        }
        let partitions = found.partitions.iter();
        let copies = partitions.map(|p| p.replicas.len()).min().unwrap_or(0);
        if let Some(wanted) = self.replication.filter(|wanted| *wanted as usize != copies) {
            differences.push(format!("replication is {copies}, not {wanted}"));
        }
        differences
    }

    /// The same of its settings.
    fn config_differences(&self, found: &[describe_configs::Config]) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, wanted) in &self.configs {
            let found = found.iter().find(|config| config.name == *name);
            let value = found.and_then(|config| config.value.as_deref());
            if value.map(parts) != wanted.as_deref().map(parts) {
                let [value, wanted] =
                    [value, wanted.as_deref()].map(|v| v.unwrap_or("the default"));
                differences.push(format!("{name} is {value}, not {wanted}"));
            }
        }
        differences
    }

    /// Sets one of the topic's own settings, such as `cleanup.policy`.
    pub fn config(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.configs.push((name.into(), Some(value.into())));
        self
    }
}

/// What becomes of old records (`cleanup.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// They are deleted after a while, or when there are too many.
    Delete,
    /// The newest of each key is kept.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl CleanupPolicy {
    fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactAndDelete => "compact,delete",
        }
    }
}

/// How a topic came to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// It was made.
    Created,
    /// It was there.
    Existed {
        /// What it has otherwise than asked for, such as `partitions is 3, not 12`.
        differences: Vec<String>,
    },
}

/// A topic with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Partitions, leaders, replicas.
    pub topic: Arc<Topic>,
    /// Settings that differ from the cluster's defaults.
    pub configs: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// The cluster's topics.
#[derive(Debug, Clone)]
pub struct Topics {
    cluster: Cluster,
}

impl Topics {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// Every topic, by name, Kafka's own left out.
    ///
    /// # Errors
    /// When no broker answers.
    ///
    /// Cancel safety: safe.
    pub async fn list(&self) -> Result<Vec<Arc<Topic>>> {
        let view = self.cluster.all_topics().await?;
        let mut topics: Vec<_> = view
            .topics
            .values()
            .filter(|t| !t.internal)
            .cloned()
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic with the settings that are its own.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopicOrPartition`], naming the topic; or when no broker answers.
    ///
    /// Cancel safety: safe.
    pub async fn describe(&self, name: &str) -> Result<TopicDescription> {
        let view = self.cluster.all_topics().await?;
        let topic = view.topic(name).cloned().ok_or_else(|| unknown(name))?;
        let configs = self.configs(name).await?;
        let own = configs.into_iter().filter(|config| !config.is_default);
        let configs = own.map(|config| (config.name, config.value)).collect();
        Ok(TopicDescription { topic, configs })
    }

    /// Every setting of a topic, the cluster's defaults among them.
    async fn configs(&self, name: &str) -> Result<Vec<describe_configs::Config>> {
        let resource = describe_configs::Resource::Topic(name.into());
        let asked = self.cluster.ask(move |connection| {
            let request = describe_configs::Request {
                resources: vec![(resource.clone(), None)],
            };
            Box::pin(async move { describe_configs::call(&connection, &request).await })
        });
        let mut configs = Vec::new();
        for (_, answer) in asked.await?.resources {
            let rows = answer.map_err(|error| error.into_error(ApiKey::DescribeConfigs, name))?;
            configs.extend(rows);
        }
        Ok(configs)
    }

    /// Creates a topic, and waits until it shows in metadata.
    ///
    /// # Errors
    /// The broker's refusal, such as `TOPIC_ALREADY_EXISTS`; or when no broker answers.
    ///
    /// Cancel safety: the topic may or may not be created.
    pub async fn create(&self, topic: NewTopic) -> Result<()> {
        let NewTopic {
            name,
            partitions,
            replication,
            configs,
        } = topic;
        let new = create_topics::NewTopic {
            name: Arc::clone(&name),
            partitions,
            replication,
            configs,
            assignments: Vec::new(),
        };
        let request = create_topics::Request {
            topics: vec![new],
            validate_only: false,
        };
        let made = self.cluster.change(move |connection| {
            let request = request.clone();
            Box::pin(async move { create_topics::call(&connection, &request).await })
        });
        let (response, in_doubt) = made.await?;
        for (_, answer) in response.topics {
            answer.map_err(|error| {
                let ours = in_doubt && error.code == Code::TOPIC_ALREADY_EXISTS;
                let error = error.into_error(ApiKey::CreateTopics, &name);
                match ours {
                    true => error.with_message("perhaps made by an attempt whose answer was lost"),
                    false => error,
                }
            })?;
        }
        self.until(&name, |topic| {
            topic.is_some_and(|topic| topic.available.len() == topic.partitions.len())
        })
        .await;
        Ok(())
    }

    /// Creates a topic unless it is there already, whoever makes it first. One that is there stays
    /// as it is: what differs from the order is told, and said in the log. Who may not create topics,
    /// or not read their settings, may still find one there.
    ///
    /// # Errors
    /// As [`create`](Self::create), unless the topic is there all the same; when no broker answers.
    ///
    /// Cancel safety: the topic may or may not be created.
    pub async fn ensure(&self, topic: NewTopic) -> Result<Ensured> {
        let refused = match self.create(topic.clone()).await {
            Ok(()) => return Ok(Ensured::Created),
            Err(error) if error.code() == Some(Code::TOPIC_ALREADY_EXISTS) => {
                // It may have been made a moment ago, and not show in every broker's metadata yet.
                self.until(&topic.name, |shown| shown.is_some()).await;
                error.with_message("and it does not show in metadata")
            }
            // Whoever may not make it need not: most may only write to what is there.
            Err(error) if is_forbidden(&error) => error,
            Err(error) => return Err(error),
        };
        let name = Arc::clone(&topic.name);
        let view = self.cluster.all_topics().await?;
        let found = view.topic(&name).ok_or(refused)?;
        let mut differences = topic.differences(found);
        if !topic.configs.is_empty() {
            match self.configs(&name).await {
                Ok(configs) => differences.extend(topic.config_differences(&configs)),
                Err(error) if is_forbidden(&error) => {
                    differences.push(format!("its settings are not known: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        if !differences.is_empty() {
            let differences = differences.join("; ");
            tracing::warn!(
                topic = &*name,
                differences,
                "a topic is not as it was asked for"
            );
        }
        Ok(Ensured::Existed { differences })
    }

    /// Deletes a topic with all it holds, and waits until metadata no longer shows it.
    ///
    /// # Errors
    /// The broker's refusal, such as an unknown topic; or when no broker answers.
    ///
    /// Cancel safety: the topic may or may not be deleted.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let request = delete_topics::Request {
            topics: vec![name.into()],
        };
        let id = self.id(name).await;
        let made = self.cluster.change(move |connection| {
            let request = request.clone();
            Box::pin(async move { delete_topics::call(&connection, &request).await })
        });
        let (response, in_doubt) = made.await?;
        for (_, answer) in response.topics {
            match answer {
                // An attempt whose answer was lost has deleted it.
                Err(error) if in_doubt && error.code == Code::UNKNOWN_TOPIC_OR_PARTITION => {}
                answer => {
                    answer.map_err(|error| error.into_error(ApiKey::DeleteTopics, name))?;
                }
            }
        }
        self.until(name, |topic| {
            topic.is_none_or(|topic| id.is_some() && topic.id != id)
        })
        .await;
        Ok(())
    }

    async fn id(&self, name: &str) -> Option<TopicId> {
        let view = self.cluster.all_topics().await.ok()?;
        view.topic(name).and_then(|topic| topic.id)
    }

    /// The change is done when this is called; a cluster that is slow to show it is no error.
    async fn until(&self, name: &str, shown: impl Fn(Option<&Topic>) -> bool) {
        let deadline = tokio::time::Instant::now() + SHOWS_WITHIN;
        while tokio::time::Instant::now() < deadline {
            if let Ok(view) = self.cluster.all_topics().await
                && shown(view.topic(name).map(|topic| &**topic))
            {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether the principal lacks the permission, which says nothing about the topic.
fn is_forbidden(error: &Error) -> bool {
    let codes = [
        Code::TOPIC_AUTHORIZATION_FAILED,
        Code::CLUSTER_AUTHORIZATION_FAILED,
    ];
    error.code().is_some_and(|code| codes.contains(&code))
}

/// The value of a setting as a list, whose order says nothing.
fn parts(value: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = value.split(',').map(str::trim).collect();
    parts.sort_unstable();
    parts
}

fn unknown(name: &str) -> Error {
    Error::new(
        ErrorKind::UnknownTopicOrPartition,
        format!("there is no topic {name}"),
    )
}
