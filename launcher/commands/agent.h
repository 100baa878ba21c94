#pragma once

namespace CLI {
class App;
}

namespace trireme {

// `trireme agent`: what a starter runs on every node (launcher/starter.h). Hidden from --help.
void add_agent_command(CLI::App& app, int& exit_status);

}  // namespace trireme
