//! What `plan` and `start` have in common: a pool, its new layout, its proxies.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::ConfigFile;
use crate::cli::exit::ExitStatus;
use crate::cli::pool_choice::choose;
use crate::config::{self, Config};
use crate::proxy::config::{PoolConfig, Protocol};
use crate::reshard::proxies::ProxyUrl;
use crate::router::layout::Layout;
use crate::router::spec::LayoutSpec;
use crate::upstream::config::Secret;

use super::Failure;

/// Which pool goes where.
#[derive(Debug, clap::Args)]
pub struct PoolArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The pool, if the config has more than one
    #[arg(short, long, value_name = "POOL")]
    pool: Option<String>,
    /// The new layout: a TOML file with hash, distribution, hash_tag and [[shard]]
    #[arg(long, value_name = "LAYOUT")]
    to: PathBuf,
    #[command(flatten)]
    proxies: ProxyArgs,
}

/// Whom to tell about a switch.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    /// Admin address of a proxy of the pool, http://HOST:PORT; give all of them
    /// [default: the config's admin.http]
    #[arg(long = "proxy", value_name = "URL")]
    urls: Vec<ProxyUrl>,
    /// File with the proxies' admin token [default: the config's admin.token]
    #[arg(long, value_name = "FILE")]
    proxy_token_file: Option<PathBuf>,
}

/// The same, checked.
#[derive(Debug)]
pub struct MeantPool {
    /// Everything the config says.
    pub config: Config,
    /// The pool's part of it.
    pub pool: PoolConfig,
    /// The pool's layout in the config.
    pub config_layout: Arc<Layout>,
    /// The layout wanted.
    pub to: Arc<Layout>,
    /// Every proxy, each once; empty when nothing says where one is.
    pub proxies: Vec<ProxyUrl>,
    /// Whether `proxies` were named on the command line.
    pub proxies_were_named: bool,
    /// What they want to know.
    pub token: Option<Secret>,
}

impl PoolArgs {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// What is wrong in them, and where.
    pub fn meant(&self) -> Result<MeantPool, Failure> {
        let usage = |text: String| Failure::laid_out(ExitStatus::Usage, text);
        let config = config::load(&self.config.file).map_err(|error| usage(error.to_string()))?;
        let pool = choose(&config, &self.config.file, self.pool.as_deref())
            .map_err(|error| usage(error.to_string()))?
            .clone();
        if pool.protocol == Protocol::Memcached {
            return Err(Failure::new(
                ExitStatus::Refused,
                format!(
                    "pool `{}` is of memcacheds, which cannot be resharded",
                    pool.name
                ),
                "memcached has no replication to follow; change its [[pool.NAME.shard]] and \
                 reload: keys that move are missed once (`keyferry config diff` says how many)",
            ));
        }
        let to = config::load_layout(&self.to).map_err(|error| usage(error.to_string()))?;
        Ok(MeantPool {
            config_layout: layout(pool.layout.clone(), &self.config.file)?,
            to: layout(to, &self.to)?,
            proxies: self.proxies.urls(config.admin.http),
            proxies_were_named: !self.proxies.urls.is_empty(),
            token: self.proxies.token(config.admin.token.as_ref())?,
            config,
            pool,
        })
    }
}

impl ProxyArgs {
    fn urls(&self, admin: Option<SocketAddr>) -> Vec<ProxyUrl> {
        let mut urls = self.urls.clone();
        if urls.is_empty() {
            urls.extend(admin.and_then(|address| reachable(address).to_string().parse().ok()));
        }
        urls.sort();
        urls.dedup();
        urls
    }

    /// The token file's content, or else what the config has.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn token(&self, configured: Option<&Secret>) -> Result<Option<Secret>, Failure> {
        let Some(file) = &self.proxy_token_file else {
            return Ok(configured.cloned());
        };
        let text = fs::read_to_string(file).map_err(|error| {
            let what = format!("cannot read {}: {error}", file.display());
            let help = "give the file that admin.token of the proxies names";
            Failure::new(ExitStatus::Usage, what, help)
        })?;
        Ok(Some(Secret::new(text.trim())))
    }
}

/// An address that listens everywhere is called on the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

fn layout(spec: LayoutSpec, file: &Path) -> Result<Arc<Layout>, Failure> {
    Layout::new(spec).map(Arc::new).map_err(|error| {
        Failure::new(
            ExitStatus::Usage,
            format!("{}: {error}", file.display()),
            "correct the layout",
        )
    })
}
