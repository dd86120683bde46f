//! Draws the difference between two versions of a job.

use serde_json::Value;

use crate::cli::format::quoted;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::view::View;

/// Draws with or without colour.
struct Drawing {
    out: Output,
    verbose: bool,
    text: String,
}

/// The difference, ending with an empty line.
pub fn job(diff: &Value, verbose: bool, out: Output) -> String {
    let mut drawing = Drawing { out, verbose, text: String::new() };
    drawing.job(diff);
    drawing.text
}

/// The marker of a kind of change, without colour.
fn marker(kind: &str) -> &'static str {
    match kind {
        "Added" => "+ ",
        "Deleted" => "- ",
        "Edited" => "+/- ",
        _ => "",
    }
}

/// The longest marker among siblings.
fn longest<'a>(items: impl IntoIterator<Item = &'a Value>) -> usize {
    items.into_iter().map(|item| marker(item.text("Type")).len()).max().unwrap_or(0)
}

impl Drawing {
    fn mark(&self, kind: &str) -> String {
        let style = match kind {
            "Added" => Style::Green,
            "Deleted" => Style::Red,
            "Edited" => Style::LightYellow,
            _ => return String::new(),
        };
        self.out.paint(style, marker(kind))
    }

    fn job(&mut self, diff: &Value) {
        let kind = diff.text("Type");
        let name = self.out.paint(Style::Bold, &format!("Job: {}", quoted(diff.text("ID"))));
        self.text.push_str(&format!("{}{name}\n", self.mark(kind)));
        if kind == "Edited" || self.verbose {
            self.members(diff, 0);
        }
        let groups = diff.list("TaskGroups");
        let width = longest(groups);
        for group in groups {
            self.group(group, width);
            self.text.push('\n');
        }
    }

    fn group(&mut self, group: &Value, width: usize) {
        let kind = group.text("Type");
        let name = self.out.paint(Style::Bold, &format!("Task Group: {}", quoted(group.text("Name"))));
        let head = self.head(kind, width, 0, &name);
        self.text.push_str(&head);
        let updates: Vec<String> = group
            .entries("Updates")
            .into_iter()
            .filter(|(_, count)| count.as_i64() != Some(0))
            .map(|(what, count)| self.update(what, count))
            .collect();
        if !updates.is_empty() {
            self.text.push_str(&format!(" ({})", updates.join(", ")));
        }
        self.text.push('\n');
        if kind == "Edited" || self.verbose {
            self.members(group, 2);
        }
        let tasks = group.list("Tasks");
        let width = longest(tasks);
        for task in tasks {
            self.task(task, width);
        }
    }

    fn update(&self, what: &str, count: &Value) -> String {
        let text = format!("{count} {what}");
        let style = match what {
            "canary" => Style::LightYellow,
            "create" => Style::Green,
            "create/destroy update" => Style::Yellow,
            "destroy" => Style::Red,
            "in-place update" => Style::Cyan,
            "migrate" => Style::Blue,
            _ => return text,
        };
        self.out.paint(style, &text)
    }

    fn task(&mut self, task: &Value, width: usize) {
        let kind = task.text("Type");
        let name = self.out.paint(Style::Bold, &format!("Task: {}", quoted(task.text("Name"))));
        let head = self.head(kind, width, 2, &name);
        self.text.push_str(&head);
        let annotations = self.annotations(task);
        self.text.push_str(&format!("{annotations}\n"));
        let shown = match kind {
            "None" => false,
            "Added" | "Deleted" => self.verbose,
            _ => true,
        };
        if shown || (self.verbose && kind == "None") {
            self.members(task, 4);
        }
    }

    /// Indent, marker, padding and name.
    fn head(&self, kind: &str, width: usize, indent: usize, name: &str) -> String {
        let pad = width.saturating_sub(marker(kind).len());
        format!("{}{}{}{name}", " ".repeat(indent), self.mark(kind), " ".repeat(pad))
    }

    fn annotations(&self, item: &Value) -> String {
        let texts = item.texts("Annotations");
        if texts.is_empty() {
            return String::new();
        }
        let painted: Vec<String> = texts
            .iter()
            .map(|text| match text.as_str() {
                "forces create" => self.out.paint(Style::Green, text),
                "forces destroy" => self.out.paint(Style::Red, text),
                "forces in-place update" => self.out.paint(Style::Cyan, text),
                "forces create/destroy update" => self.out.paint(Style::Yellow, text),
                _ => text.clone(),
            })
            .collect();
        format!(" ({})", painted.join(", "))
    }

    /// The fields and objects of a job, group, task or object.
    fn members(&mut self, item: &Value, indent: usize) {
        let fields = item.list("Fields");
        let objects = item.list("Objects");
        let width = longest(fields.iter().chain(objects));
        let names = fields.iter().map(|field| field.text("Name").chars().count()).max().unwrap_or(0);
        for field in fields {
            self.field(field, width, names, indent);
        }
        for object in objects {
            self.object(object, width, indent);
        }
    }

    fn field(&mut self, field: &Value, width: usize, names: usize, indent: usize) {
        let (kind, name) = (field.text("Type"), field.text("Name"));
        let (old, new) = (quoted(field.text("Old")), quoted(field.text("New")));
        let value = match kind {
            "Added" => new,
            "Deleted" => old,
            "Edited" => format!("{old} => {new}"),
            _ => new,
        };
        let pad = " ".repeat(names - name.chars().count());
        let head = self.head(kind, width, indent, name);
        let annotations = self.annotations(field);
        self.text.push_str(&format!("{head}: {pad}{value}{annotations}\n"));
    }

    fn object(&mut self, object: &Value, width: usize, indent: usize) {
        let head = self.head(object.text("Type"), width, indent, object.text("Name"));
        self.text.push_str(&format!("{head} {{\n"));
        let pad = width.saturating_sub(marker(object.text("Type")).len());
        self.members(object, indent + 2 + pad);
        self.text.push_str(&format!("{}}}\n", " ".repeat(indent + width)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_edit_shows_old_and_new_side_by_side() {
        let diff = json!({
            "Type": "Edited", "ID": "shop", "TaskGroups": [{
                "Type": "Edited", "Name": "front",
                "Updates": {"create": 1, "create/destroy update": 2, "ignore": 0},
                "Fields": [{"Type": "Edited", "Name": "Count", "Old": "2", "New": "3", "Annotations": ["forces create"]}],
                "Tasks": [{
                    "Type": "Edited", "Name": "web", "Annotations": ["forces create/destroy update"],
                    "Objects": [{"Type": "Edited", "Name": "Config", "Fields": [
                        {"Type": "Edited", "Name": "image", "Old": "nginx:1.25", "New": "nginx:1.27"},
                        {"Type": "None", "Name": "ports[0]", "Old": "http", "New": "http"},
                    ]}],
                }],
            }],
        });
        let wanted = r#"+/- Job: "shop"
+/- Task Group: "front" (1 create, 2 create/destroy update)
  +/- Count: "2" => "3" (forces create)
  +/- Task: "web" (forces create/destroy update)
    +/- Config {
      +/- image:    "nginx:1.25" => "nginx:1.27"
          ports[0]: "http"
        }

"#;
        assert_eq!(job(&diff, false, Output::default()), wanted);
    }

    #[test]
    fn a_new_job_shows_its_tasks_by_name_only() {
        let diff = json!({
            "Type": "Added", "ID": "shop", "Fields": [{"Type": "Added", "Name": "ID", "Old": "", "New": "shop"}],
            "TaskGroups": [{
                "Type": "Added", "Name": "front", "Updates": {"create": 2},
                "Fields": [{"Type": "Added", "Name": "Count", "Old": "", "New": "2"}],
                "Tasks": [{"Type": "Added", "Name": "web", "Annotations": ["forces create"],
                           "Fields": [{"Type": "Added", "Name": "Driver", "Old": "", "New": "docker"}]}],
            }],
        });
        let wanted =
            "+ Job: \"shop\"\n+ Task Group: \"front\" (2 create)\n  + Task: \"web\" (forces create)\n\n";
        assert_eq!(job(&diff, false, Output::default()), wanted);
    }
}
