#pragma once

namespace CLI {
class App;
}

namespace trireme {

// `trireme run`: plans if needed, launches, supervises, reports.
void add_run_command(CLI::App& app, int& exit_status);

}  // namespace trireme
