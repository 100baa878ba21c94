#pragma once

namespace CLI {
class App;
}

namespace trireme {

// Adds the subcommand; `exit_status` receives its result when it runs and must outlive the parse.
void add_show_command(CLI::App& app, int& exit_status);

}  // namespace trireme
