job "config-maps" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        labels = { a = "b" }
        sysctl {
          net_core = "1"
        }
        none = {}
      }
    }
  }
}
