//! `reddwarf image`: manages the images of this host.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::NonEmptyStringValueParser;

use super::illumos;
use crate::node::images::{Images, Registries};
use crate::storage::{Directories, StorageEngine, StoragePoolConfig, ZfsStorageEngine};

/// The flags of `image`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The data directory of the agent.
    #[arg(long, global = true, default_value = "reddwarf-data")]
    data_dir: PathBuf,
    /// The ZFS pool or dataset (illumos; by default rpool/reddwarf) or directory (by default in --data-dir) for images,
    /// zones and volumes.
    #[arg(long, global = true)]
    storage_pool: Option<String>,
    /// The dataset of images; by default POOL/images.
    #[arg(long, global = true)]
    images_dataset: Option<String>,
    /// A directory with zfs, ... instead of this host's (illumos): for a fake host.
    #[arg(long, env = "REDDWARF_ILLUMOS_TOOLS", global = true)]
    illumos_tools: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Load images from an OCI layout or docker archive: a directory or a tar file.
    Load {
        /// The directory or file.
        path: PathBuf,
        /// The name to give the image, instead of its own.
        #[arg(long)]
        name: Option<String>,
    },
    /// Pull images from their registries.
    Pull {
        /// Names of images.
        #[arg(required = true)]
        names: Vec<String>,
        /// Registries (HOST:PORT) to contact over plain HTTP.
        #[arg(long, value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
        insecure_registry: Vec<String>,
    },
    /// List images.
    List,
    /// Remove images by name or id.
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// A text that says what failed, and why.
pub fn run(arguments: Arguments) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(work(arguments))
}

async fn work(arguments: Arguments) -> Result<(), String> {
    let data = std::path::absolute(&arguments.data_dir).map_err(|error| error.to_string())?;
    let zfs = cfg!(target_os = "illumos") || arguments.illumos_tools.is_some();
    let pool = match arguments.storage_pool {
        Some(pool) => pool,
        None if zfs => illumos::POOL.to_owned(),
        None => data.join("storage").display().to_string(),
    };
    let images = arguments.images_dataset.as_deref();
    let config =
        StoragePoolConfig::derive(&pool, None, images, None).map_err(|error| error.to_string())?;
    let images = match zfs {
        true => {
            let tools = illumos::tools(arguments.illumos_tools.as_deref(), &data)
                .map_err(|error| error.to_string())?;
            let engine = ZfsStorageEngine::new(tools.clone(), config.clone(), false);
            let engine = Arc::new(engine.map_err(|error| error.to_string())?);
            engine.prepare().await.map_err(|error| error.to_string())?;
            let at = illumos::mountpoint(tools.as_ref(), &config.images).await;
            let at = at.map_err(|error| error.to_string())?;
            Images::new(&at.join("records"), engine)
        }
        false => {
            let engine = Arc::new(Directories::new(&config));
            engine.prepare().await.map_err(|error| error.to_string())?;
            Images::new(&PathBuf::from(&config.images).join("records"), engine)
        }
    };
    match arguments.command {
        Command::Load { path, name } => {
            for image in images
                .load(&path, name.as_deref())
                .await
                .map_err(|error| super::brief(&error))?
            {
                super::say(&format!(
                    "loaded {} ({})",
                    image.names.join(", "),
                    short(&image.id)
                ));
            }
        }
        Command::Pull {
            names,
            insecure_registry,
        } => {
            let registries = Registries::new(insecure_registry)?;
            for name in names {
                let image = images
                    .pull(&registries, &name, None, None)
                    .await
                    .map_err(|error| error.to_string())?;
                super::say(&format!(
                    "pulled {} ({})",
                    image.names.join(", "),
                    short(&image.id)
                ));
            }
        }
        Command::List => {
            super::say(&format!("{:<60} {:<14} {:>10}", "IMAGE", "ID", "SIZE"));
            for image in images.list().map_err(|error| error.to_string())? {
                for name in &image.names {
                    super::say(&format!(
                        "{name:<60} {:<14} {:>8}kB",
                        short(&image.id),
                        image.size / 1000
                    ));
                }
            }
        }
        Command::Rm { names } => {
            for name in names {
                let image = images
                    .remove(&name)
                    .await
                    .map_err(|error| error.to_string())?;
                super::say(&format!(
                    "removed {} ({})",
                    image.names.join(", "),
                    short(&image.id)
                ));
            }
        }
    }
    Ok(())
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}
