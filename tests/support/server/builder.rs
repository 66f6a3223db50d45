//! What a server is to be like, and the options that say so to `mysqld`.

use std::path::PathBuf;

use super::Server;

/// What a server is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) page_size: u32,
    pub(super) server_id: Option<u32>,
    pub(super) gtid: bool,
    pub(super) log_bin: bool,
    pub(super) separate_dirs: bool,
    pub(super) data_file_path: Option<String>,
    pub(super) external_dir: bool,
    pub(super) keyring: Option<PathBuf>,
    pub(super) own_keyring: bool,
    pub(super) lower_case_table_names: Option<u32>,
    pub(super) fresh: bool,
    pub(super) options: Vec<(String, String)>,
    pub(super) datadir: Option<PathBuf>,
    pub(super) work_dir: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            page_size: 16 << 10,
            server_id: None,
            gtid: true,
            log_bin: true,
            separate_dirs: false,
            data_file_path: None,
            external_dir: true,
            keyring: None,
            own_keyring: false,
            lower_case_table_names: None,
            fresh: false,
            options: Vec::new(),
            datadir: None,
            work_dir: None,
        }
    }
}

impl Builder {
    /// `innodb_page_size`; 16 KiB unless told.
    pub fn page_size(mut self, bytes: u32) -> Self {
        self.page_size = bytes;
        self
    }

    /// Any server option: `option("innodb_flush_method", "fsync")`. Later ones win.
    pub fn option(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.options.push((name.replace('_', "-"), value.to_string()));
        self
    }

    pub fn server_id(mut self, id: u32) -> Self {
        self.server_id = Some(id);
        self
    }

    /// GTIDs; on unless told.
    pub fn gtid(mut self, on: bool) -> Self {
        self.gtid = on;
        self
    }

    /// The binary log; on unless told. Off turns GTIDs off too.
    pub fn log_bin(mut self, on: bool) -> Self {
        self.log_bin = on;
        self.gtid &= on;
        self
    }

    /// Undo, redo, binary log and system tablespace each in a directory of its own, outside of the data directory.
    pub fn separate_dirs(mut self) -> Self {
        self.separate_dirs = true;
        self
    }

    /// `innodb_data_file_path`: "a:12M;b:12M:autoextend".
    pub fn system_files(mut self, path: &str) -> Self {
        self.data_file_path = Some(path.to_owned());
        self
    }

    /// All directories where a server has them by default, and the default system tablespace.
    pub fn default_places(mut self) -> Self {
        self.separate_dirs = false;
        self.data_file_path = None;
        self.external_dir = false;
        self
    }

    /// Whether `innodb_directories` names [`Server::external_dir`]; yes unless told.
    pub fn external_dir(mut self, on: bool) -> Self {
        self.external_dir = on;
        self
    }

    /// `component_keyring_file` with a key file of its own.
    pub fn keyring(mut self) -> Self {
        self.own_keyring = true;
        self
    }

    /// `component_keyring_file` with a given key file.
    pub fn keyring_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.keyring = Some(path.into());
        self
    }

    pub fn lower_case_table_names(mut self, value: u32) -> Self {
        self.lower_case_table_names = Some(value);
        self
    }

    /// Initialise anew instead of copying a template, so that even the redo log's uuid is its own.
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Runs on a directory that is already a database: a restored one. It is not removed at the end.
    pub fn on_datadir(mut self, path: impl Into<PathBuf>) -> Self {
        self.datadir = Some(path.into());
        self
    }

    /// Where the server's own folder is made, instead of below the target folder.
    pub fn work_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.work_dir = Some(path.into());
        self
    }

    /// Makes the directories and files, without starting.
    pub fn create(self) -> Server {
        Server::create(self)
    }

    /// Makes the server, starts it and waits until it answers.
    pub async fn start(self) -> Server {
        let mut server = Server::create(self);
        server.start().await;
        server
    }
}

impl Server {
    /// The options that this server runs with, `--no-defaults` first.
    pub fn arguments(&self) -> Vec<String> {
        let builder = &self.builder;
        let root = self.root.path();
        let mut args = vec!["--no-defaults".to_owned()];
        let mut set = |name: &str, value: &dyn std::fmt::Display| args.push(format!("--{name}={value}"));
        set("datadir", &self.datadir.display());
        set("socket", &self.socket().display());
        set("pid-file", &root.join("pid").display());
        set("log-error", &self.error_log_path().display());
        set("log-error-verbosity", &3);
        set("tmpdir", &root.join("tmp").display());
        set("port", &self.port);
        set("bind-address", &"127.0.0.1");
        set("loose-mysqlx", &"OFF");
        set("server-id", &self.id);
        set("innodb-page-size", &builder.page_size);
        // Small, so that several run side by side on a small machine. Durability stays the server's default.
        set("innodb-buffer-pool-size", &"64M");
        set("innodb-redo-log-capacity", &"64M");
        set("table-definition-cache", &600);
        // The most there can be: see the check of the full-text index.
        set("innodb-ft-cache-size", &80_000_000);
        set("max-connections", &80);
        if builder.log_bin {
            let dir = if builder.separate_dirs { root.join("binlog") } else { self.datadir.clone() };
            set("log-bin", &dir.join("binlog").display());
            set("log-bin-index", &dir.join("binlog.index").display());
        } else {
            set("skip-log-bin", &"ON");
        }
        let gtid = if builder.gtid { "ON" } else { "OFF" };
        set("gtid-mode", &gtid);
        set("enforce-gtid-consistency", &gtid);
        if builder.separate_dirs {
            set("innodb-undo-directory", &root.join("undo").display());
            set("innodb-log-group-home-dir", &root.join("redo").display());
            set("innodb-data-home-dir", &root.join("sys").display());
        }
        if builder.external_dir {
            set("innodb-directories", &self.external_dir().display());
        }
        if let Some(path) = &builder.data_file_path {
            set("innodb-data-file-path", path);
        }
        if let Some(value) = builder.lower_case_table_names {
            set("lower-case-table-names", &value);
        }
        for (name, value) in &builder.options {
            set(name, value);
        }
        args
    }
}
