job "lang-conversions" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      user   = 1000
      leader = "1"
      resources {
        cpu    = "250"
        memory = 128.0
      }
      env {
        N = 1.50
        B = false
      }
    }
  }
}
