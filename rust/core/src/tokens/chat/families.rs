//! What is published about the families of models: how their messages, tools and images are counted.

/// How images are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ImageRules {
    /// A fixed cost, and one for each tile of 512 pixels.
    Tiles {
        /// Of any image, and all that one of low detail costs.
        base: u32,
        /// Of each tile.
        tile: u32,
    },
    /// A cost for each patch of 32 pixels.
    Patches {
        /// Tokens of a patch.
        multiplier: f64,
        /// The most patches at high detail.
        high: u32,
        /// The most patches at `original` detail: 0 where there is no such detail, `u32::MAX` without a limit.
        original: u32,
    },
}

/// The rules of one family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// What its model names begin with.
    pub prefix: &'static str,
    /// OpenAI has published a function that gives the API's own figure for messages of this family.
    pub published: bool,
    /// Tokens before each tool.
    pub tool_start: u64,
    /// How it counts images.
    pub images: ImageRules,
    /// An image without `detail` counts as one of `original` detail.
    pub auto_is_original: bool,
}

const fn tiles(base: u32, tile: u32) -> ImageRules {
    ImageRules::Tiles { base, tile }
}

const fn patches(multiplier: f64, high: u32, original: u32) -> ImageRules {
    ImageRules::Patches { multiplier, high, original }
}

const fn published(prefix: &'static str, tool_start: u64, images: ImageRules) -> Family {
    Family { prefix, published: true, tool_start, images, auto_is_original: false }
}

const fn guessed(prefix: &'static str, images: ImageRules) -> Family {
    Family { prefix, published: false, tool_start: 7, images, auto_is_original: false }
}

const fn original(prefix: &'static str, most: u32) -> Family {
    Family { auto_is_original: true, ..guessed(prefix, patches(1.2, 2500, most)) }
}

/// The longest prefix decides. Where no multiplier is published, bills show 1.2.
const FAMILIES: [Family; 28] = [
    published("gpt-3.5-turbo", 10, tiles(85, 170)),
    published("gpt-35-turbo", 10, tiles(85, 170)),
    published("gpt-4", 10, tiles(85, 170)),
    published("gpt-4o", 7, tiles(85, 170)),
    published("gpt-4o-mini", 7, tiles(2833, 5667)),
    published("chatgpt-4o", 7, tiles(85, 170)),
    guessed("gpt-4.1", tiles(85, 170)),
    guessed("gpt-4.1-mini", patches(1.62, 1536, 0)),
    guessed("gpt-4.1-nano", patches(2.46, 1536, 0)),
    guessed("gpt-4.5", tiles(85, 170)),
    guessed("o1", tiles(75, 150)),
    guessed("o3", tiles(75, 150)),
    guessed("o4-mini", patches(1.72, 1536, 0)),
    guessed("gpt-5", tiles(70, 140)),
    guessed("gpt-5-mini", patches(1.62, 1536, 0)),
    guessed("gpt-5-nano", patches(2.46, 1536, 0)),
    guessed("gpt-5-codex-mini", patches(1.62, 1536, 0)),
    guessed("gpt-5.1-codex-mini", patches(1.62, 1536, 0)),
    guessed("gpt-5.2", patches(1.2, 1536, 0)),
    guessed("gpt-5.3", patches(1.2, 1536, 0)),
    guessed("gpt-5.4", patches(1.2, 2500, 10_000)),
    guessed("gpt-5.4-mini", patches(1.62, 1536, 0)),
    guessed("gpt-5.4-nano", patches(2.46, 1536, 0)),
    original("gpt-5.5", 10_000),
    original("gpt-5.6", u32::MAX),
    guessed("computer-use-preview", tiles(65, 129)),
    guessed("gpt-oss", tiles(85, 170)),
    guessed("codex-mini", patches(1.72, 1536, 0)),
];

const UNKNOWN: Family = guessed("", tiles(85, 170));

impl Family {
    /// The rules for a model name; fine-tuned models (`ft:…`) and names with a provider (`openai/…`) included.
    pub fn of(model: &str) -> Family {
        let name = bare_model(model);
        let matching = FAMILIES.iter().filter(|family| name.starts_with(family.prefix));
        matching.max_by_key(|family| family.prefix.len()).copied().unwrap_or(UNKNOWN)
    }

    /// Is there any rule for it, or only the reserve for models that nobody knows?
    pub fn is_known(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// What its bills for patches show differs from the published formula by some per cent; tiles agree.
    pub(super) fn image_doubt(&self) -> Option<super::Reason> {
        match self.images {
            _ if !self.is_known() => Some(super::Reason::ImageModel),
            ImageRules::Tiles { .. } => None,
            ImageRules::Patches { .. } => Some(super::Reason::ImagePatches),
        }
    }
}

/// The name without provider and without the mark of fine-tuning.
pub fn bare_model(model: &str) -> &str {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.strip_prefix("ft:").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        for (model, prefix) in [
            ("gpt-4-0613", "gpt-4"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
            ("openai/gpt-4.1-mini", "gpt-4.1-mini"),
            ("ft:gpt-4o-mini:acme::id", "gpt-4o-mini"),
            ("gpt-5.1", "gpt-5"),
            ("o3-mini", "o3"),
            ("qwen/qwen3-32b", ""),
        ] {
            assert_eq!(Family::of(model).prefix, prefix, "{model}");
        }
    }
}
