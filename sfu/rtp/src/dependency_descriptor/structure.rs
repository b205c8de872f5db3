//! Templates, decode targets and chains: what a key frame brings (§A.8.2, `template_dependency_structure`).

use crate::DecodeError;
use crate::bytes::low_u8;
use crate::dependency_descriptor::bits::BitReader;
use crate::dependency_descriptor::{
    DECODE_TARGETS_MAX, REFERENCES_MAX, SPATIAL_LAYERS_MAX, TEMPLATES_MAX, TEMPORAL_LAYERS_MAX,
};

/// What a frame is to a decode target (§A.8.3, table A.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Indication {
    /// It does not belong to the target.
    #[default]
    NotPresent,
    /// It belongs to the target, and no later frame of the target needs it.
    Discardable,
    /// Whoever has it can begin with the target here.
    Switch,
    /// The target needs it.
    Required,
}

/// What the frames from one key frame to the next are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    template_id_offset: u8,
    templates: Vec<Template>,
    decode_targets: usize,
    /// The highest spatial and temporal layer of each decode target.
    layers: [(u8, u8); DECODE_TARGETS_MAX],
    chains: usize,
    /// The chain that protects each decode target.
    protected_by: [u8; DECODE_TARGETS_MAX],
    resolutions: Option<[(u32, u32); SPATIAL_LAYERS_MAX]>,
}

/// A kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Template {
    pub(super) spatial_layer: u8,
    pub(super) temporal_layer: u8,
    pub(super) indications: Indications,
    pub(super) frame_diffs: List<u16, REFERENCES_MAX>,
    pub(super) chain_diffs: List<u8, DECODE_TARGETS_MAX>,
}

impl Structure {
    /// How many decode targets there are, 1 to 32.
    #[must_use]
    pub fn decode_targets(&self) -> usize {
        self.decode_targets
    }

    /// How many chains there are, up to 32.
    #[must_use]
    pub fn chains(&self) -> usize {
        self.chains
    }

    /// The spatial and the temporal layer of the decode target `target`.
    #[must_use]
    pub fn layers(&self, target: usize) -> Option<(u8, u8)> {
        self.layers[..self.decode_targets].get(target).copied()
    }

    /// The decode target of a spatial and a temporal layer.
    #[must_use]
    pub fn decode_target(&self, spatial_layer: u8, temporal_layer: u8) -> Option<usize> {
        self.layers[..self.decode_targets]
            .iter()
            .position(|layers| *layers == (spatial_layer, temporal_layer))
    }

    /// The chain that protects the decode target `target`: as long as none of its frames is lost, the target can be
    /// decoded.
    #[must_use]
    pub fn protected_by(&self, target: usize) -> Option<usize> {
        let chains = if self.chains == 0 {
            0
        } else {
            self.decode_targets
        };
        self.protected_by[..chains]
            .get(target)
            .copied()
            .map(usize::from)
    }

    /// Width and height of a spatial layer, in pixels, where they are told.
    #[must_use]
    pub fn resolution(&self, spatial_layer: u8) -> Option<(u32, u32)> {
        self.resolutions?.get(usize::from(spatial_layer)).copied()
    }

    /// How many spatial layers there are, 1 to 4.
    #[must_use]
    pub fn spatial_layers(&self) -> u8 {
        let highest = self
            .templates
            .iter()
            .map(|template| template.spatial_layer)
            .max();
        highest.unwrap_or_default() + 1
    }

    /// How many temporal layers there are, 1 to 8.
    #[must_use]
    pub fn temporal_layers(&self) -> u8 {
        let highest = self
            .templates
            .iter()
            .map(|template| template.temporal_layer)
            .max();
        highest.unwrap_or_default() + 1
    }

    /// The template a packet refers to: ids go on counting from structure to structure, modulo 64.
    pub(super) fn template(&self, id: u8) -> Result<&Template, DecodeError> {
        let at = usize::from(id.wrapping_sub(self.template_id_offset)) % TEMPLATES_MAX;
        self.templates.get(at).ok_or(DecodeError::WrongValue {
            field: "frame_dependency_template_id",
            got: u32::from(id),
        })
    }

    pub(super) fn read(reader: &mut BitReader<'_>) -> Result<Structure, DecodeError> {
        let template_id_offset = low_u8(u64::from(reader.read(6)?));
        let target_count = reader.read(5)? + 1;
        let decode_targets = target_count as usize;
        let mut templates = read_layers(reader)?;

        for template in &mut templates {
            template.indications = Indications::read(reader, decode_targets)?;
        }
        for template in &mut templates {
            while reader.flag()? {
                let diff = low_u8(u64::from(reader.read(4)?));
                template
                    .frame_diffs
                    .push(u16::from(diff) + 1, "references")?;
            }
        }

        let chains = reader.below(target_count + 1)?;
        let mut protected_by = [0; DECODE_TARGETS_MAX];
        if chains > 0 {
            for chain in &mut protected_by[..decode_targets] {
                *chain = low_u8(u64::from(reader.below(chains)?));
            }
            for template in &mut templates {
                for _ in 0..chains {
                    let diff = low_u8(u64::from(reader.read(4)?));
                    template.chain_diffs.push(diff, "chains")?;
                }
            }
        }

        let mut structure = Structure {
            template_id_offset,
            layers: layers_of_targets(&templates, decode_targets),
            templates,
            decode_targets,
            chains: chains as usize,
            protected_by,
            resolutions: None,
        };
        if reader.flag()? {
            let mut resolutions = [(0, 0); SPATIAL_LAYERS_MAX];
            for resolution in &mut resolutions[..usize::from(structure.spatial_layers())] {
                *resolution = (reader.read(16)? + 1, reader.read(16)? + 1);
            }
            structure.resolutions = Some(resolutions);
        }
        Ok(structure)
    }
}

/// Reads the layers of the templates, and so how many there are (§A.8.2, `template_layers`).
fn read_layers(reader: &mut BitReader<'_>) -> Result<Vec<Template>, DecodeError> {
    let too_many = |what, max| Err(DecodeError::TooMany { what, max });
    let mut templates = Vec::new();
    let mut template = Template::default();
    loop {
        if templates.len() == TEMPLATES_MAX {
            return too_many("templates", TEMPLATES_MAX);
        }
        templates.push(template);
        match reader.read(2)? {
            0 => {}
            1 => template.temporal_layer += 1,
            2 => {
                template.temporal_layer = 0;
                template.spatial_layer += 1;
            }
            _ => return Ok(templates),
        }
        if usize::from(template.spatial_layer) >= SPATIAL_LAYERS_MAX {
            return too_many("spatial layers", SPATIAL_LAYERS_MAX);
        }
        if usize::from(template.temporal_layer) >= TEMPORAL_LAYERS_MAX {
            return too_many("temporal layers", TEMPORAL_LAYERS_MAX);
        }
    }
}

/// The highest layers among the templates that belong to each target (§A.8.2, `decode_target_layers`).
fn layers_of_targets(
    templates: &[Template],
    decode_targets: usize,
) -> [(u8, u8); DECODE_TARGETS_MAX] {
    let mut layers = [(0, 0); DECODE_TARGETS_MAX];
    for (target, (spatial, temporal)) in layers.iter_mut().enumerate().take(decode_targets) {
        for template in templates {
            if template.indications.get(target) != Indication::NotPresent {
                *spatial = template.spatial_layer.max(*spatial);
                *temporal = template.temporal_layer.max(*temporal);
            }
        }
    }
    layers
}

/// An indication of two bits for each decode target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Indications {
    bits: u64,
    len: usize,
}

impl Indications {
    pub(super) fn read(reader: &mut BitReader<'_>, len: usize) -> Result<Indications, DecodeError> {
        let mut bits = 0;
        for target in 0..len {
            bits |= u64::from(reader.read(2)?) << (2 * target);
        }
        Ok(Indications { bits, len })
    }

    /// For how many decode targets there is one.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, target: usize) -> Indication {
        if target >= self.len {
            return Indication::NotPresent;
        }
        match self.bits >> (2 * target) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }
}

/// Up to `MAX` items, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List<T, const MAX: usize> {
    items: [T; MAX],
    len: usize,
}

impl<T: Copy + Default, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        List {
            items: [T::default(); MAX],
            len: 0,
        }
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    pub(super) fn push(&mut self, item: T, what: &'static str) -> Result<(), DecodeError> {
        let place = self.items.get_mut(self.len);
        *place.ok_or(DecodeError::TooMany { what, max: MAX })? = item;
        self.len += 1;
        Ok(())
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.items[..self.len]
    }
}
