//! What the operator counts, as Prometheus reads it.
//!
//! ```text
//!   controllers ── counted as it happens ───────────► Metrics ─► render ─► /metrics
//!   what they watch ── looked at for each scrape ───────┘
//! ```
//!
//! Gauges of objects are taken from what is there at that moment, so that nothing is told of an object that is gone.
//! The labels are names that people chose: namespace and name, never an id or a message.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From half a minute to a day.
const DURATIONS: [f64; 9] = [30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0, 28_800.0, 86_400.0];
/// From a call or two to a store that hardly answers.
const RECONCILIATIONS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNamespace {
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    namespace: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfObject {
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMethod {
    method: String,
}

#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// A storage, as it is when somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Backups can go there.
    pub ready: bool,
    /// Complete backups in it.
    pub backups: i64,
    /// What they take.
    pub stored_bytes: i64,
}

/// A schedule, as it is when somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleState {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was made, in seconds since 1970; unknown for one that only its backups tell of.
    pub created: Option<i64>,
    /// When its last good backup was complete.
    pub last_success: Option<i64>,
}

/// What is looked at for each scrape.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// All storages.
    pub storages: Vec<StorageState>,
    /// All schedules.
    pub schedules: Vec<ScheduleState>,
}

/// How a backup ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// How long it took.
    pub duration: Duration,
    /// Bytes read from the server's files.
    pub read: u64,
    /// Bytes stored.
    pub stored: u64,
}

type Look = Box<dyn Fn() -> Watched + Send + Sync>;

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    backups: Family<OfResult, Counter>,
    durations: Family<OfNamespace, Histogram, Buckets>,
    read: Family<OfNamespace, Counter>,
    stored: Family<OfNamespace, Counter>,
    left_behind: Family<OfNamespace, Counter>,
    reconciliations: Family<OfController, Histogram, Buckets>,
    errors: Family<OfController, Counter>,
    requests: Family<OfMethod, Counter>,
    leader: Gauge,
    storage_ready: Family<OfObject, Gauge>,
    storage_backups: Family<OfObject, Gauge>,
    storage_bytes: Family<OfObject, Gauge>,
    schedule_success: Family<OfObject, Gauge>,
    schedule_created: Family<OfObject, Gauge>,
    memory: Gauge,
    files: Gauge,
    cpu: Gauge<f64, std::sync::atomic::AtomicU64>,
    look: OnceLock<Look>,
    /// One scrape at a time: the gauges of objects are made anew for each.
    scrape: Mutex<()>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            backups: Family::default(),
            durations: Family::new_with_constructor(Buckets(&DURATIONS)),
            read: Family::default(),
            stored: Family::default(),
            left_behind: Family::default(),
            reconciliations: Family::new_with_constructor(Buckets(&RECONCILIATIONS)),
            errors: Family::default(),
            requests: Family::default(),
            leader: Gauge::default(),
            storage_ready: Family::default(),
            storage_backups: Family::default(),
            storage_bytes: Family::default(),
            schedule_success: Family::default(),
            schedule_created: Family::default(),
            memory: Gauge::default(),
            files: Gauge::default(),
            cpu: Gauge::default(),
            look: OnceLock::new(),
            scrape: Mutex::new(()),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let all = &mut self.registry;
        let own = all.sub_registry_with_prefix("stillframe");
        own.register("backups", "Backups that ended, by result", self.backups.clone());
        own.register("backup_duration_seconds", "How long good backups took", self.durations.clone());
        own.register("backup_read_bytes", "Bytes that good backups read", self.read.clone());
        own.register("backup_stored_bytes", "Bytes that good backups stored", self.stored.clone());
        own.register("backup_data_left_behind", "Deletions that gave up on stored data", self.left_behind.clone());
        own.register("reconcile_duration_seconds", "How long looks at an object took", self.reconciliations.clone());
        own.register("reconcile_errors", "Looks at an object that failed", self.errors.clone());
        own.register("kubernetes_requests", "Requests to the API server", self.requests.clone());
        own.register("leader", "1 while this process does the work", self.leader.clone());
        own.register("storage_ready", "1 while backups can go there", self.storage_ready.clone());
        own.register("storage_backups", "Complete backups in a storage", self.storage_backups.clone());
        own.register("storage_stored_bytes", "What the backups of a storage take", self.storage_bytes.clone());
        own.register(
            "schedule_last_success_timestamp_seconds",
            "When the last good backup of a schedule was complete",
            self.schedule_success.clone(),
        );
        own.register("schedule_created_timestamp_seconds", "When a schedule was made", self.schedule_created.clone());
        let process = all.sub_registry_with_prefix("process");
        process.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, self.memory.clone());
        process.register("open_fds", "Open files and connections", self.files.clone());
        process.register("cpu_seconds_total", "Time on a processor", self.cpu.clone());
        let started: Gauge = Gauge::default();
        started.set(since_1970(crate::util::clock::system_now()));
        process.register("start_time_seconds", "When this process began", started);
    }

    /// Where storages and schedules are seen. The first one told stays.
    pub fn look_with(&self, look: impl Fn() -> Watched + Send + Sync + 'static) {
        // A second one would be a second operator in one process.
        let _ = self.look.set(Box::new(look));
    }

    /// A backup is complete.
    pub fn backup_succeeded(&self, namespace: &str, finished: Finished) {
        let of = OfNamespace { namespace: namespace.to_owned() };
        self.backups.get_or_create(&OfResult { namespace: namespace.to_owned(), result: "succeeded" }).inc();
        self.durations.get_or_create(&of).observe(finished.duration.as_secs_f64());
        self.read.get_or_create(&of).inc_by(finished.read);
        self.stored.get_or_create(&of).inc_by(finished.stored);
    }

    /// A backup failed for good.
    pub fn backup_failed(&self, namespace: &str) {
        self.backups.get_or_create(&OfResult { namespace: namespace.to_owned(), result: "failed" }).inc();
    }

    /// A backup's object was let go though its stored data could not be removed.
    pub fn data_left_behind(&self, namespace: &str) {
        self.left_behind.get_or_create(&OfNamespace { namespace: namespace.to_owned() }).inc();
    }

    /// Begins to count what may happen in a namespace.
    fn expect_backups(&self, namespace: &str) {
        for result in ["succeeded", "failed"] {
            drop(self.backups.get_or_create(&OfResult { namespace: namespace.to_owned(), result }));
        }
        drop(self.left_behind.get_or_create(&OfNamespace { namespace: namespace.to_owned() }));
    }

    /// A controller has looked at an object.
    pub fn reconciled(&self, controller: &'static str, took: Duration, well: bool) {
        let of = OfController { controller };
        self.reconciliations.get_or_create(&of).observe(took.as_secs_f64());
        let errors = self.errors.get_or_create(&of);
        if !well {
            errors.inc();
        }
    }

    /// A request goes to the API server.
    pub fn requested(&self, method: &str) {
        self.requests.get_or_create(&OfMethod { method: method.to_owned() }).inc();
    }

    /// This process does the work, or does not.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_at_objects();
        self.look_at_process();
        let mut page = String::new();
        // A string takes everything.
        let _ = prometheus_text::encode(&mut page, &self.registry);
        page
    }

    fn look_at_objects(&self) {
        let of = |namespace: &str, name: &str| OfObject { namespace: namespace.to_owned(), name: name.to_owned() };
        let Watched { storages, schedules } = self.look.get().map(|look| look()).unwrap_or_default();
        for family in [
            &self.storage_ready,
            &self.storage_backups,
            &self.storage_bytes,
            &self.schedule_success,
            &self.schedule_created,
        ] {
            family.clear();
        }
        // A counter that first appears when it is one already has not grown, for whoever asks whether it did.
        let namespaces = storages.iter().map(|storage| &storage.namespace);
        for namespace in namespaces.chain(schedules.iter().map(|schedule| &schedule.namespace)) {
            self.expect_backups(namespace);
        }
        for StorageState { namespace, name, ready, backups, stored_bytes } in storages {
            let of = of(&namespace, &name);
            self.storage_ready.get_or_create(&of).set(i64::from(ready));
            self.storage_backups.get_or_create(&of).set(backups);
            self.storage_bytes.get_or_create(&of).set(stored_bytes);
        }
        for ScheduleState { namespace, name, created, last_success } in schedules {
            let of = of(&namespace, &name);
            if let Some(created) = created {
                self.schedule_created.get_or_create(&of).set(created);
            }
            if let Some(last) = last_success {
                self.schedule_success.get_or_create(&of).set(last);
            }
        }
    }

    /// What Linux says of this process; on another system these stay at zero.
    fn look_at_process(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        self.memory.set(kilobytes.and_then(|number| number.parse::<i64>().ok()).unwrap_or(0).saturating_mul(1024));
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.files.set(i64::try_from(files).unwrap_or(i64::MAX));
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        self.cpu.set(processor_seconds(&stat).unwrap_or(0.0));
    }
}

/// User and system time: the 14th and 15th field, counted behind the command's name, which may hold anything.
fn processor_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    // Linux counts these in hundredths for user space, whatever its own clock does.
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

fn since_1970(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(page: &str, name: &str) -> Option<String> {
        page.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    }

    #[test]
    fn what_happened_is_on_the_page() {
        let metrics = Metrics::new();
        let finished = Finished { duration: Duration::from_secs(200), read: 1000, stored: 400 };
        metrics.backup_succeeded("shop", finished);
        metrics.backup_succeeded("shop", finished);
        metrics.backup_failed("shop");
        metrics.reconciled("backup", Duration::from_millis(20), true);
        metrics.reconciled("backup", Duration::from_millis(20), false);
        metrics.requested("GET");
        metrics.leads(true);
        let page = metrics.render();
        for (name, value) in [
            ("stillframe_backups_total{namespace=\"shop\",result=\"succeeded\"}", "2"),
            ("stillframe_backups_total{namespace=\"shop\",result=\"failed\"}", "1"),
            ("stillframe_backup_read_bytes_total{namespace=\"shop\"}", "2000"),
            ("stillframe_backup_stored_bytes_total{namespace=\"shop\"}", "800"),
            ("stillframe_backup_duration_seconds_count{namespace=\"shop\"}", "2"),
            ("stillframe_reconcile_errors_total{controller=\"backup\"}", "1"),
            ("stillframe_reconcile_duration_seconds_count{controller=\"backup\"}", "2"),
            ("stillframe_kubernetes_requests_total{method=\"GET\"}", "1"),
            ("stillframe_leader", "1"),
        ] {
            assert_eq!(sample(&page, name).as_deref(), Some(value), "{name}:\n{page}");
        }
        let memory: i64 = sample(&page, "process_resident_memory_bytes").unwrap().parse().unwrap();
        assert!(memory > 1 << 20, "{memory}");
    }

    /// Metrics of which each has a value: those that have none are not on the page.
    fn all_counted() -> Metrics {
        let metrics = Metrics::new();
        metrics.backup_succeeded("shop", Finished { duration: Duration::from_secs(200), read: 1000, stored: 400 });
        metrics.backup_failed("shop");
        metrics.data_left_behind("shop");
        metrics.reconciled("backup", Duration::from_millis(20), false);
        metrics.requested("GET");
        let of = || ("shop".to_owned(), "nightly".to_owned());
        metrics.look_with(move || {
            let ((namespace, name), (also, as_well)) = (of(), of());
            let storage = StorageState { namespace, name, ready: true, backups: 3, stored_bytes: 70 };
            let schedule = ScheduleState { namespace: also, name: as_well, created: Some(5), last_success: Some(6) };
            Watched { storages: vec![storage], schedules: vec![schedule] }
        });
        metrics
    }

    #[test]
    fn each_metric_has_its_row_in_the_documentation() {
        use std::collections::BTreeSet;
        // "# TYPE stillframe_backups_total counter".
        let made: BTreeSet<String> = all_counted()
            .render()
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE stillframe_")?.split_once(' '))
            .map(|(name, kind)| format!("| `stillframe_{name}` | {kind} |"))
            .collect();
        let page = include_str!("../../docs/metrics.md");
        let rows = page.lines().filter(|line| line.starts_with("| `stillframe_"));
        let told: BTreeSet<String> =
            rows.map(|row| row.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|").collect();
        assert_eq!(told, made, "docs/metrics.md has a row for each metric, with its type");
        let code = include_str!("metrics.rs").split("#[cfg(test)]").next().unwrap_or_default();
        assert_eq!(code.matches("own.register(").count(), made.len(), "one has no value here, and so was not compared");
    }

    #[test]
    fn counters_of_a_namespace_are_there_before_anything_is_counted() {
        let metrics = Metrics::new();
        metrics.look_with(|| {
            let (namespace, name) = ("shop".to_owned(), "bucket".to_owned());
            let storage = StorageState { namespace, name, ready: true, backups: 0, stored_bytes: 0 };
            Watched { storages: vec![storage], schedules: vec![] }
        });
        let page = metrics.render();
        for name in [
            "stillframe_backups_total{namespace=\"shop\",result=\"failed\"}",
            "stillframe_backups_total{namespace=\"shop\",result=\"succeeded\"}",
            "stillframe_backup_data_left_behind_total{namespace=\"shop\"}",
        ] {
            assert_eq!(sample(&page, name).as_deref(), Some("0"), "{name}:\n{page}");
        }
        metrics.backup_failed("shop");
        let page = metrics.render();
        let failed = "stillframe_backups_total{namespace=\"shop\",result=\"failed\"}";
        assert_eq!(sample(&page, failed).as_deref(), Some("1"), "{page}");
    }

    #[test]
    fn an_object_that_is_gone_is_not_told_of() {
        let metrics = Metrics::new();
        let there = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let seen = std::sync::Arc::clone(&there);
        metrics.look_with(move || {
            if !seen.load(std::sync::atomic::Ordering::Relaxed) {
                return Watched::default();
            }
            let (namespace, name) = ("shop".to_owned(), "nightly".to_owned());
            Watched {
                storages: vec![StorageState {
                    namespace: namespace.clone(),
                    name: "bucket".into(),
                    ready: true,
                    backups: 3,
                    stored_bytes: 70,
                }],
                schedules: vec![ScheduleState { namespace, name, created: Some(5), last_success: None }],
            }
        });
        let page = metrics.render();
        let of = "{namespace=\"shop\",name=\"bucket\"}";
        assert_eq!(sample(&page, &format!("stillframe_storage_ready{of}")).as_deref(), Some("1"), "{page}");
        assert_eq!(sample(&page, &format!("stillframe_storage_stored_bytes{of}")).as_deref(), Some("70"));
        let nightly = "{namespace=\"shop\",name=\"nightly\"}";
        let created = format!("stillframe_schedule_created_timestamp_seconds{nightly}");
        assert_eq!(sample(&page, &created).as_deref(), Some("5"), "{page}");
        assert_eq!(sample(&page, &format!("stillframe_schedule_last_success_timestamp_seconds{nightly}")), None);
        there.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(sample(&metrics.render(), &format!("stillframe_storage_ready{of}")), None);
    }

    #[test]
    fn the_processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0";
        assert_eq!(processor_seconds(stat), Some(3.0));
        assert_eq!(processor_seconds(""), None);
    }
}
