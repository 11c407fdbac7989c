//! Where computations run.

use candle_core::Device;

use crate::Result;

/// The first GPU that this build supports, or the CPU.
///
/// # Errors
/// If the build supports a GPU but cannot use one.
pub fn best(cpu: bool) -> Result<Device> {
    let device = if cpu {
        Device::Cpu
    } else if cfg!(feature = "cuda") {
        Device::new_cuda(0).map_err(router_stats::Error::from)?
    } else if cfg!(feature = "metal") {
        Device::new_metal(0).map_err(router_stats::Error::from)?
    } else {
        Device::Cpu
    };
    Ok(device)
}
