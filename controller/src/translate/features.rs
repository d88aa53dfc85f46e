//! Features that GatewayClasses of ours state.
pub const SUPPORTED: &[&str] = &[];
