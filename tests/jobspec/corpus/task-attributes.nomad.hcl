job "task-attributes" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      user           = "1000:1000"
      leader         = true
      kill_timeout   = "45s"
      kill_signal    = "SIGQUIT"
      shutdown_delay = "3s"
      kind           = ""
    }
  }
}
