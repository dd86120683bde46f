job "task-null-attributes" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      user        = null
      kill_signal = null
      leader      = null
    }
  }
}
