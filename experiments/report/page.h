// The report of a study: one HTML file that needs nothing else, CSV files for other tools, and the
// table of the terminal.
#pragma once

#include <string>

#include "experiments/report/study.h"
#include "experiments/report/table.h"

namespace strata {

// All take a study after summarize_study.
std::string to_html(const StudyResult& study);
std::string runs_csv(const StudyResult& study);    // one line per variant and seed
std::string table_csv(const StudyResult& study);   // one line per variant
std::string curves_csv(const StudyResult& study);  // one line per variant, seed and step
std::string to_json(const StudyResult& study);     // everything but the curves
Table to_table(const StudyResult& study);

// Writes report.html, table.csv, runs.csv and curves.csv to a folder; returns the page's path.
// Throws Error when the folder cannot be written.
std::string write_report(const StudyResult& study, const std::string& folder);

// "0.9980 ± 0.0021", or "0.9980" where there is no interval, or "-".
std::string interval_text(const Summary& summary, int digits = 3);

// "1.23 GiB", or "-" for what is not known.
std::string memory_text(int64_t bytes);

}  // namespace strata
