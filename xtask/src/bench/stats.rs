//! Medians, percentiles and tables.

/// The middle of some values; of an even number the mean of the two in the middle. NaN if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(&value), 1) => value,
        (Some(&value), _) => f64::midpoint(values[middle - 1], value),
    }
}

/// The value that `share` (0 to 1) of the sorted values do not exceed: the nearest rank. 0 if there are none.
pub fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (as_f64(sorted.len() as u64) * share).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length, checked by the look-up"
    )]
    let index = (rank as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(0)
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^52")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A table, printed with aligned columns or as Markdown.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            rows: vec![columns.iter().map(|&column| column.to_owned()).collect()],
        }
    }

    /// Adds a row with as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table's text.
    pub fn text(&self, markdown: bool) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
            })
            .collect();
        let mut text = if markdown {
            format!("**{}**\n\n", self.title)
        } else {
            format!("{}\n", self.title)
        };
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column == 0 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
            let cells: Vec<String> = cells.collect();
            if markdown {
                text.extend(["| ", &cells.join(" | "), " |\n"]);
                if index == 0 {
                    let rules = widths.iter().enumerate().map(|(column, &width)| {
                        let end = if column == 0 { "-" } else { ":" };
                        format!("{}{end}", "-".repeat(width + 1))
                    });
                    text.extend(["|", &rules.collect::<Vec<_>>().join("|"), "|\n"]);
                }
            } else {
                text.push_str(cells.join("  ").trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// Prints the table to standard output.
    pub fn print(&self, markdown: bool) {
        println!("{}", self.text(markdown));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 0.5), 100);
        assert_eq!(percentile(&values, 0.99), 198);
        assert_eq!(percentile(&values, 1.0), 200);
        assert_eq!(percentile(&values, 0.0), 1);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new("Title", &["proxy", "CPU"]);
        table.row(["a".to_owned(), "1.00".to_owned()]);
        assert_eq!(table.text(false), "Title\nproxy   CPU\na      1.00\n");
        assert_eq!(
            table.text(true),
            "**Title**\n\n| proxy |  CPU |\n|-------|-----:|\n| a     | 1.00 |\n"
        );
    }
}
