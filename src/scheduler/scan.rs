//! Looks at nodes: requirements, room and score of one, and of all of them at once.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::model::allocation::AllocMetric;
use crate::model::id::AllocId;

use super::cluster::Yielded;
use super::cluster::add;
use super::grant::Granter;
use super::grant::fits;
use super::metric::BEST_KEPT;
use super::metric::note;
use super::place::Refusal;
use super::property::Property;
use super::property::Scope;
use super::property::missing_score;
use super::ranking::Bucket;
use super::ranking::COMPONENTS_MAX;
use super::ranking::Candidate;
use super::ranking::Entry;
use super::ranking::top;
use super::round::Leaving;
use super::round::Round;
use super::score::Components;
use super::score::mean;
use super::score::packing;
use super::unfit::Unfit;

impl Round<'_> {
    pub(super) fn merge_exhausted(&self, metric: &mut AllocMetric, unfit: &Unfit, failures: i64) {
        for (task, resources) in self.ask.exhausted(unfit, failures) {
            let known = metric.resources_exhausted.entry(task).or_default();
            known.cpu_mhz = known.cpu_mhz.max(resources.cpu_mhz);
            known.memory_mb = known.memory_mb.max(resources.memory_mb);
        }
    }

    pub(super) fn note_exhausted(&self, metric: &mut AllocMetric, failures: i64) {
        for unfit in [Unfit::CpuExhausted, Unfit::MemoryExhausted] {
            if metric.dimension_exhausted.contains_key(&unfit.to_string()) {
                self.merge_exhausted(metric, &unfit, failures);
            }
        }
    }

    pub(super) fn note_pinned(&self, metric: &mut AllocMetric, refusal: &Refusal) {
        metric.nodes_evaluated += 1;
        let view = self.cluster.slot_of(refusal.node).and_then(|slot| self.cluster.view(slot));
        let class = view.map_or("", |view| view.info.node_class.as_str());
        note(metric, &refusal.reason, class, 1);
        if refusal.reason.is_exhausted() {
            metric.resources_exhausted = self.ask.exhausted(&refusal.reason, 1);
        }
    }

    /// Looks at every node: fills the heaps if `fills`, and tells what was found.
    pub(super) fn scan(&mut self, fills: bool) -> AllocMetric {
        let mut metric = AllocMetric::default();
        // A datacenter without nodes is told as such; patterns name none.
        let named = self.request.job.datacenters.iter().filter(|name| !name.contains('*'));
        metric.nodes_available = named.map(|name| (name.clone(), 0)).collect();
        let mut refused: HashMap<(u32, Unfit), u64> = HashMap::new();
        // Per class: number of candidates, and one of them.
        let mut candidates: Vec<(u64, u32)> = vec![(0, 0); self.memos.len()];
        let plain = Yielded::default();
        for node in 0..self.cluster.nodes.len() {
            let room = self.cluster.rooms[node];
            let slot = u32::try_from(node).expect("slots are u32");
            if !room.ready || self.verdict(slot).is_err_and(|unfit| unfit.is_no_candidate()) {
                continue;
            }
            let (number, sample) = &mut candidates[room.class as usize];
            *number += 1;
            *sample = slot;
            let result = self.filter(slot, None).and_then(|()| {
                let bucket = self.bucket_of(slot);
                let values = &self.buckets[bucket as usize].values;
                let is_barred =
                    self.properties.iter().zip(values).find_map(|(p, value)| p.check(*value).err());
                match (self.score(slot, None, false, &plain), is_barred) {
                    (Ok(components), None) => Ok((bucket, components)),
                    (Err(unfit), None) => Err(unfit),
                    (scored, Some(unfit)) => {
                        // Values may become free again when allocations are replaced.
                        if let Ok(components) = scored
                            && fills
                        {
                            self.push_scored(slot, bucket, &components);
                        }
                        Err(unfit)
                    }
                }
            });
            match result {
                Ok((bucket, components)) if fills => self.push_scored(slot, bucket, &components),
                Ok(_) => {}
                Err(unfit) => *refused.entry((room.class, unfit)).or_default() += 1,
            }
        }
        for (number, sample) in candidates.iter().filter(|(number, _)| *number > 0) {
            metric.nodes_evaluated += number;
            metric.nodes_in_pool += number;
            if let Some(view) = self.cluster.view(*sample) {
                *metric.nodes_available.entry(view.info.datacenter.clone()).or_default() += number;
            }
        }
        for ((class, unfit), number) in refused {
            let sample = candidates[class as usize].1;
            let name = self.cluster.view(sample).map(|view| view.info.node_class.clone()).unwrap_or_default();
            note(&mut metric, &unfit, &name, number);
            if unfit.is_exhausted() {
                self.merge_exhausted(&mut metric, &unfit, 1);
            }
        }
        if fills {
            self.note_best(&mut metric);
        }
        metric
    }

    /// Keeps the best scores in the metric.
    pub(super) fn note_best(&self, metric: &mut AllocMetric) {
        let spreads = self.spread_scores();
        let mut best: Vec<Candidate> = Vec::new();
        for bucket in self.buckets.iter().filter(|bucket| self.is_open(bucket)) {
            let spread = self.spread_of(bucket, &spreads);
            for (at, heap) in bucket.heaps.iter().enumerate() {
                for entry in heap {
                    let score = mean(entry.sum, at + 1, spread);
                    let candidate = Candidate { score, id: entry.id, node: entry.node, spread };
                    if best.len() == BEST_KEPT && !candidate.is_better_than(best.last()) {
                        continue;
                    }
                    let at = best.partition_point(|known| known.is_better_than(Some(&candidate)));
                    best.insert(at, candidate);
                    best.truncate(BEST_KEPT);
                }
            }
        }
        for candidate in best {
            if let Ok(components) = self.score(candidate.node, None, false, &Yielded::default()) {
                let named = components.named(candidate.id, candidate.spread, !self.affinities.is_empty());
                metric.score_meta_data.push(named);
            }
        }
    }

    /// The verdict of the class-level checks on a node.
    pub(super) fn verdict(&mut self, node: u32) -> Result<(), Unfit> {
        let class = self.cluster.rooms[node as usize].class as usize;
        if let Some(verdict) = &self.verdicts[class] {
            return verdict.clone();
        }
        let view = self.cluster.view(node).ok_or(Unfit::UnknownNode)?;
        let verdict = self.requirements.check_shared(view);
        self.verdicts[class] = Some(verdict.clone());
        verdict
    }

    /// Hard requirements: those of the class, of the node, and `distinct_hosts`.
    pub(super) fn filter(&mut self, node: u32, leaving: Option<&Leaving>) -> Result<(), Unfit> {
        self.verdict(node)?;
        if self.requirements.is_unique() {
            let view = self.cluster.view(node).ok_or(Unfit::UnknownNode)?;
            self.requirements.check_unique(view, self.index)?;
        }
        for (scope, held) in self.distinct.iter().zip(&self.held) {
            let own = leaving.filter(|leaving| {
                leaving.node == node && (leaving.same_group || (*scope == Scope::Job && leaving.same_job))
            });
            if held[node as usize] > u32::from(own.is_some()) {
                return Err(Unfit::DistinctHosts);
            }
        }
        Ok(())
    }

    /// Fits the group into the node and scores it.
    pub(super) fn score(
        &self,
        node: u32,
        behind: Option<AllocId>,
        is_penalised: bool,
        nothing: &Yielded,
    ) -> Result<Components, Unfit> {
        let room = &self.cluster.rooms[node as usize];
        // A plain group is judged without a look at the node's cold data: scans are several times faster.
        let cold = || {
            let holder = &self.cluster.nodes[node as usize];
            Ok((holder, holder.view.as_deref().ok_or(Unfit::UnknownNode)?))
        };
        let charge = match self.ask.fixed_charge() {
            Some(charge) => charge,
            None => self.ask.charge(cold()?.1.mhz_per_core),
        };
        let behind = behind.map(|previous| self.cluster.used_behind(node, previous, charge));
        let (used, yielded) = match &behind {
            Some((used, yielded)) => (*used, yielded),
            None => (add(room.used, charge), nothing),
        };
        fits(room.capacity, used)?;
        let devices = if self.ask.is_plain() {
            None
        } else {
            let (node, view) = cold()?;
            Granter { ask: &self.ask, node, view, yielded }.check()?
        };
        let collisions = self.wanted[node as usize];
        let count = self.request.group.count().max(1) as f64;
        let memo = self.memos[room.class as usize].affinity;
        Ok(Components {
            packing: packing(self.request.algorithm, room.capacity, used),
            devices,
            anti_affinity: if collisions > 0 { -f64::from(collisions + 1) / count } else { 0.0 },
            penalty: if is_penalised { -1.0 } else { 0.0 },
            affinity: match memo {
                _ if self.affinities.is_empty() => 0.0,
                Some(score) => score,
                None => self.affinities.score(cold()?.1),
            },
        })
    }

    /// The bucket of a node, and on the way the class's affinity score.
    pub(super) fn bucket_of(&mut self, node: u32) -> u32 {
        let class = self.cluster.rooms[node as usize].class as usize;
        if let Some(bucket) = self.memos[class].bucket {
            return bucket;
        }
        let view = self.cluster.nodes[node as usize].view.as_deref();
        if self.memos[class].affinity.is_none()
            && !self.affinities.is_empty()
            && !self.affinities.is_unique()
            && let Some(view) = view
        {
            self.memos[class].affinity = Some(self.affinities.score(view));
        }
        let values: Box<[Option<u32>]> =
            self.properties.iter_mut().map(|p| view.and_then(|view| p.value_of(view))).collect();
        let is_unique = self.properties.iter().any(Property::is_unique);
        let bucket = match self.bucket_numbers.get(&values) {
            Some(bucket) => *bucket,
            None => {
                let number = u32::try_from(self.buckets.len()).expect("fewer buckets than nodes");
                self.buckets.push(Bucket { values: values.clone(), ..Bucket::default() });
                self.bucket_numbers.insert(values, number);
                number
            }
        };
        if !is_unique {
            self.memos[class].bucket = Some(bucket);
        }
        bucket
    }

    /// Puts a node back into its heap with its present score, or leaves it out when it no longer fits.
    pub(super) fn push(&mut self, node: u32) {
        self.stamps[node as usize] += 1;
        if !self.is_scanned || !self.cluster.rooms[node as usize].ready || self.filter(node, None).is_err() {
            return;
        }
        let bucket = self.bucket_of(node);
        if let Ok(components) = self.score(node, None, false, &Yielded::default()) {
            self.push_scored(node, bucket, &components);
        }
    }

    pub(super) fn push_scored(&mut self, node: u32, bucket: u32, components: &Components) {
        let (sum, number) = components.sum();
        let id = self.cluster.rooms[node as usize].id;
        let entry = Entry { sum, id, node, stamp: self.stamps[node as usize] };
        self.buckets[bucket as usize].heaps[number - 1].push(entry);
    }

    pub(super) fn spread_scores(&self) -> Vec<Vec<f64>> {
        self.properties.iter().map(Property::spread_scores).collect()
    }

    pub(super) fn spread_of(&self, bucket: &Bucket, scores: &[Vec<f64>]) -> f64 {
        let parts = bucket.values.iter().zip(scores).zip(&self.properties);
        parts
            .map(|((value, scores), property)| match value {
                Some(value) => scores[*value as usize],
                None => missing_score(property),
            })
            .sum()
    }

    /// No `distinct_property` bars the bucket's values.
    pub(super) fn is_open(&self, bucket: &Bucket) -> bool {
        self.properties.iter().zip(&bucket.values).all(|(property, value)| property.check(*value).is_ok())
    }

    /// The best node of the heaps, disregarding the special ones of a slot.
    pub(super) fn best_ordinary(&mut self, special: &BTreeSet<u32>) -> Option<Candidate> {
        let spreads = self.spread_scores();
        let mut best: Option<Candidate> = None;
        for at in 0..self.buckets.len() {
            if !self.is_open(&self.buckets[at]) {
                continue;
            }
            let spread = self.spread_of(&self.buckets[at], &spreads);
            for number in 1..=COMPONENTS_MAX {
                let heap = &mut self.buckets[at].heaps[number - 1];
                let Some(entry) = top(heap, &self.stamps, special) else {
                    continue;
                };
                let score = mean(entry.sum, number, spread);
                let candidate = Candidate { score, id: entry.id, node: entry.node, spread };
                if candidate.is_better_than(best.as_ref()) {
                    best = Some(candidate);
                }
            }
        }
        best
    }
}
