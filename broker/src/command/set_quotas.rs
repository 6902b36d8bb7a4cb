//! Set quotas: what a workspace may take.

use crate::{encoding::encoded, quotas::Quotas};

encoded! {
    /// The quotas that a workspace gets, in the place of those it has.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct SetQuotas {
        pub(crate) workspace: String,
        pub(crate) quotas: Quotas,
    }
}
