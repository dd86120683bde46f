job "config-list-of-maps" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        port_map = [{ http = 80 }]
        mounts = [
          { type = "tmpfs", target = "/t" },
          { type = "bind", options = { ro = true } },
        ]
      }
    }
  }
}
