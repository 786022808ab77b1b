//! The report as a page that needs nothing else: a table and plots for every section,
//! and the whole report as JSON in it.

use std::fmt::Write;

use clap::ValueEnum;

use super::{
    plot,
    report::{Figure, Ratio, Report, Row, Section, number},
    scenarios::Scenario,
};

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}\
table{border-collapse:collapse;display:block;overflow-x:auto;margin:1rem 0}\
th,td{border-bottom:1px solid #8886;padding:.3rem .8rem;text-align:left}\
td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.missed{font-weight:bold;color:#d55e00}\
svg{width:100%;max-width:42rem;height:auto;display:block;margin:1rem 0;\
font:12px system-ui,sans-serif;fill:currentColor}\
svg .title{font-size:14px;font-weight:bold}\
svg .grid{stroke:#8884;fill:none}\
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let began_at = i64::try_from(report.began_at).unwrap_or(i64::MAX);
    let began_at = prost_types::Timestamp { seconds: began_at, nanos: 0 };
    let mut about = format!(
        "Roost {}: roost {}. {}, {} threads, {:.0} GiB, Linux {}, Redis {}; the event log: \
         {}. It began at {began_at}, and took {:.0} s.",
        report.version,
        report.command,
        machine.processor,
        machine.cores,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.redis,
        machine.log,
        report.seconds,
    );
    if !report.missing.is_empty() {
        let missing: Vec<String> = report.missing.iter().filter_map(name).collect();
        let _ = write!(
            about,
            " Not measured: {}; the run goes on, was stopped or has failed.",
            missing.join(", ")
        );
    }
    let sections: String = report.sections.iter().map(section).collect();
    // Nothing in it may end the element.
    let json = serde_json::to_string(report).unwrap_or_default().replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>roost bench</title><style>{STYLE}</style>\n\
         <h1>roost bench</h1>\n<p>{}</p>\n{sections}\
         <script type=\"application/json\" id=\"report\">{json}</script></html>\n",
        escaped(&about)
    )
}

/// A scenario as on the command line.
fn name(scenario: &Scenario) -> Option<String> {
    Some(scenario.to_possible_value()?.get_name().to_owned())
}

fn section(section: &Section) -> String {
    let columns = columns(&section.rows);
    let mut html = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        html,
        "<h2>{}</h2>\n<p>{} {}</p>\n<table><tr><th></th>",
        escaped(&section.name),
        escaped(&section.about),
        section.memory()
    );
    for column in &columns {
        let _ = write!(html, "<th>{}</th>", escaped(column));
    }
    html.push_str("</tr>\n");
    for row in &section.rows {
        let _ = write!(html, "<tr><th>{}</th>", escaped(&row.name));
        for column in &columns {
            let figure = row.figures.iter().find(|figure| figure.name == *column);
            let _ =
                write!(html, "<td class=\"number\">{}</td>", figure.map_or_else(String::new, cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n<ul>\n");
    html.extend(section.ratios.iter().map(ratio));
    html.push_str("</ul>\n");
    html.extend(section.plots.iter().map(plot::svg));
    html
}

/// The names of all figures, in the order in which they first come.
fn columns(rows: &[Row]) -> Vec<&'static str> {
    let mut columns = Vec::new();
    for figure in rows.iter().flat_map(|row| &row.figures) {
        if !columns.contains(&figure.name) {
            columns.push(figure.name);
        }
    }
    columns
}

fn cell(figure: &Figure) -> String {
    escaped(&figure.amount())
}

fn ratio(ratio: &Ratio) -> String {
    let (name, value) = (escaped(&ratio.name), number(ratio.value));
    match ratio.goal {
        Some(goal) if goal.is_met(ratio.value) => format!("<li>{name} = {value}, {goal}</li>\n"),
        Some(goal) => {
            format!("<li>{name} = {value}, <span class=\"missed\">not {goal}</span></li>\n")
        }
        None => format!("<li>{name} = {value}</li>\n"),
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Goal, Machine};

    #[test]
    fn a_page_shows_every_figure_and_holds_the_report() {
        let section = Section {
            name: "<script>".to_owned(),
            about: "a & b".to_owned(),
            rows: vec![
                Row::new("one").with("rate", 1_000.0, "/s"),
                Row::new("two").with("CPU", 0.5, "µs"),
            ],
            ratios: vec![Ratio {
                name: "one ÷ two".to_owned(),
                value: 0.5,
                goal: Some(Goal::AtLeast(1.0)),
            }],
            ..Section::default()
        };
        let report = Report {
            version: "1",
            command: "bench".to_owned(),
            began_at: 0,
            seconds: 1.0,
            machine: Machine::default(),
            sections: vec![section],
            missing: vec![Scenario::Naive, Scenario::Read],
        };
        let page = page(&report);
        for part in ["&lt;script&gt;", "a &amp; b", "1000 /s", "0.500 µs", "not at least 1"] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        for part in ["began at 1970-01-01T00:00:00Z", "Not measured: naive, read;"] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert!(!page.contains("<script>"), "{page}");
        let (_, rest) = page.split_once("id=\"report\">").expect("the report");
        let (json, _) = rest.split_once("</script>").expect("its end");
        let read: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(read, serde_json::to_value(&report).expect("JSON"));
    }
}
