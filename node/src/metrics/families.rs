// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building Prometheus families out of plain figures.
//!
//! The crates count in their own structs; a scrape turns one snapshot into text. Nothing is kept
//! between scrapes, so no figure can be stale or registered twice.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Names and values of labels.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Families under construction.
#[derive(Debug, Default)]
pub struct Families {
    built: Vec<MetricFamily>,
}

/// A histogram's observations.
#[derive(Debug, Clone, Copy)]
pub struct Observations<'a> {
    /// Upper bounds in seconds.
    pub bounds: &'a [f64],
    /// Observations in each bucket, not added up; the last is above all bounds.
    pub counts: &'a [u64],
    /// Seconds of all together.
    pub sum: f64,
}

impl Families {
    /// What was built.
    pub fn into_inner(self) -> Vec<MetricFamily> {
        self.built
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &str, about: &str, value: f64) {
        self.gauges(name, about, [(&[][..], value)]);
    }

    /// Such figures with labels.
    pub fn gauges<'a>(
        &mut self,
        name: &str,
        about: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = labelled(labels);
            metric.set_gauge(gauge);
            metric
        });
        self.push(name, about, MetricType::GAUGE, metrics.collect());
    }

    /// A figure that only rises.
    pub fn counter(&mut self, name: &str, about: &str, value: f64) {
        self.counters(name, about, [(&[][..], value)]);
    }

    /// Such figures with labels.
    pub fn counters<'a>(
        &mut self,
        name: &str,
        about: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value);
            let mut metric = labelled(labels);
            metric.set_counter(counter);
            metric
        });
        self.push(name, about, MetricType::COUNTER, metrics.collect());
    }

    /// How long things took.
    pub fn histograms<'a>(
        &mut self,
        name: &str,
        about: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, Observations<'a>)>,
    ) {
        let metrics = samples.into_iter().map(|(labels, observed)| {
            let mut below = 0;
            let buckets = observed.bounds.iter().zip(observed.counts).map(|(bound, count)| {
                below += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(below);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(observed.counts.iter().sum());
            histogram.set_sample_sum(observed.sum);
            let mut metric = labelled(labels);
            metric.set_histogram(histogram);
            metric
        });
        self.push(name, about, MetricType::HISTOGRAM, metrics.collect());
    }

    fn push(&mut self, name: &str, about: &str, kind: MetricType, metrics: Vec<Metric>) {
        // A family without a sample has no text form.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(about.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.built.push(family);
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
