job "config-scalars" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "x"
        count = 3
        ratio = 1.5
        flag  = true
        thing = null
        big   = 1e3
        list  = ["a", 1, true]
        empty = []
      }
    }
  }
}
